"""Resumes in the epoch and at the batch where a run stopped: streams, epochs that end early, other processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets, interleave_datasets
from selection import few_of
from torch.utils.data import BatchSampler
from transformers import TrainerCallback

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, continued, train
from conformance.trainers import as_collated_trainer

pytestmark = pytest.mark.slow
DEFECT = pytest.mark.defect


def attempt(world_size: int, run: Run) -> list[Any]:
    """The rows of each rank; or, if one fails, what it says, so that a test fails by its assertion."""
    try:
        return run_ranks(world_size, train, run)
    except RankFailed as failure:
        return [str(failure)]


def interrupted(world_size: int, run: Run, stop_after: int) -> list[Any]:
    """The rows of a run that is stopped after some optimizer steps, and of the one that goes on from there, joined."""
    before = attempt(world_size, replace(run, stop_after=stop_after))
    after = attempt(world_size, continued(replace(run, stop_after=stop_after)))
    failed = [outcome for outcome in (before, after) if isinstance(outcome[0], str)]
    return failed[0] if failed else [one + other for one, other in zip(before, after)]


def _stream(dataset: Dataset, shards: int = 1) -> Any:
    return dataset.to_iterable_dataset(num_shards=shards).shuffle(seed=7, buffer_size=16)


def streaming_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """The rows are a stream, shuffled by a buffer."""
    return as_collated_trainer(run, arguments, _stream(dataset))


def files_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """The stream comes in four files of unequal length."""
    half, quarter, rest = (len(dataset) // share for share in (2, 4, 8))
    starts = (0, half, half + quarter, len(dataset) - rest)
    parts = [dataset.select(range(start, start + size)) for start, size in zip(starts, (half, quarter, rest, rest))]
    streams = [part.to_iterable_dataset() for part in parts]
    return as_collated_trainer(run, arguments, concatenate_datasets(streams).shuffle(seed=7, buffer_size=16))


def interleaved_trainer(run: Run, arguments: dict[str, Any], dataset: DatasetDict) -> Any:
    """Several streams as one."""
    streams = [part.to_iterable_dataset() for part in dataset.values()]
    mixed = interleave_datasets(streams, stopping_strategy="all_exhausted").shuffle(seed=7, buffer_size=16)
    return as_collated_trainer(run, arguments, mixed)


@dataclass(frozen=True)
class Case:
    """A run, and the optimizer steps after which it is stopped."""

    world_size: int
    trainer: Any
    stop: int
    rows: tuple[int, ...] = (40,)
    accelerator: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=lambda: {"max_steps": 14})
    sampler: Any = "batch_sampler"

    def run(self, folder: Path, model: str) -> Run:
        """What each process calls."""
        settings = {name: getattr(self, name) for name in ("rows", "accelerator", "arguments", "trainer", "sampler")}
        return Run(str(folder), model, **settings)


WORKERS = {"max_steps": 16, "dataloader_num_workers": 2}
SHARDED = {"dispatch_batches": False}
STREAMS = {
    "one process": Case(1, streaming_trainer, 7),
    "at the end of a pass": Case(1, streaming_trainer, 10),
    "gradient accumulation": Case(
        1, streaming_trainer, 3, arguments={"max_steps": 6, "gradient_accumulation_steps": 2}
    ),
    "workers": Case(1, files_trainer, 12, arguments=WORKERS, rows=(80,)),
    "persistent workers": Case(
        1, files_trainer, 12, rows=(80,), arguments={**WORKERS, "dataloader_persistent_workers": True}
    ),
    "dispatched": Case(2, streaming_trainer, 5, rows=(56,), arguments={"max_steps": 8}),
    "dispatched, workers": Case(2, files_trainer, 9, rows=(112,), arguments=WORKERS),
    "dispatched, interleaved": Case(2, interleaved_trainer, 8, rows=(40, 40)),
    "sharded": Case(2, streaming_trainer, 5, (56,), SHARDED, {"max_steps": 8}),
}


class _EndEpoch(TrainerCallback):
    """Ends each epoch in its second half."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_epoch_stop = state.epoch % 1 > 0.5


def ending_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Every epoch is ended early."""
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    trainer.add_callback(_EndEpoch())
    return trainer


class _Promising(BatchSampler):
    """Yields a batch less, or more, than it promises."""

    surplus = 0

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        batches = list(super().__iter__())
        turned = batches[self.epoch :] + batches[: self.epoch]
        return islice(chain(turned, repeat(turned[-1])), len(self) + self.surplus)


class Fewer(_Promising):
    """Yields two batches less."""

    surplus = -2


class More(_Promising):
    """Yields two batches more."""

    surplus = 2


EPOCHS = {
    "ended by a callback": Case(1, ending_trainer, 8, (48,), {}, {}),
    "ended by a callback, at the end": Case(1, ending_trainer, 4, (48,), {}, {}),
    "ended by a callback, on 2": Case(2, ending_trainer, 6, (96,), {}, {}, "no_duplicates"),
    "fewer batches": Case(1, None, 6, (48,), {}, {}, Fewer),
    "fewer batches, accumulated": Case(1, None, 3, (48,), {}, {"gradient_accumulation_steps": 2}, Fewer),
    "fewer batches, on 2": Case(2, None, 6, (96,), {}, {}, Fewer),
}
SURPLUS = {
    "more batches": Case(1, None, 8, (48,), {}, {}, More),
    "more batches, at the end": Case(1, None, 6, (48,), {}, {}, More),
    "more batches, on 2": Case(2, None, 8, (96,), {}, {}, More),
    "promised, accumulated": Case(1, None, 4, (48,), {}, {"gradient_accumulation_steps": 2}),
}
DEFECTS = {f"stream, {name}": case for name, case in STREAMS.items()} | {
    f"epochs, {name}": case for name, case in EPOCHS.items()
}
CASES = DEFECTS | {f"epochs, {name}": case for name, case in SURPLUS.items()}
FEW = ("stream, one process", "stream, dispatched", "epochs, fewer batches, on 2", "epochs, more batches, at the end")


@pytest.mark.parametrize("name", few_of(CASES, FEW, DEFECTS))
def test_resumed_run_goes_on_where_it_stopped(name: str, tmp_path: Path, model: str) -> None:
    """Stopped in a later epoch or pass, the rows before and after are those of the uninterrupted run."""
    case = CASES[name]
    run = case.run(tmp_path, model)
    whole = attempt(case.world_size, run)
    assert not isinstance(whole[0], str), whole[0]
    assert interrupted(case.world_size, run, case.stop) == whole


class _SaveAt(TrainerCallback):
    """Saves at an event, as transformers' just-in-time checkpoints do, and ends the run."""

    def __init__(self, trainer: Any, step: int) -> None:
        self.trainer, self.step = trainer, step

    def save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Once so many optimizer steps are done."""
        if state.global_step == self.step and not control.should_training_stop:
            control.should_training_stop = True
            self.trainer._save_checkpoint(self.trainer.model, trial=None)


def saving_trainer(event: str, step: int, build: Any, run: Run, *rest: Any) -> Any:
    """A trainer that is stopped at an event after some steps."""
    trainer = build(run, *rest)
    if not run.resume:
        callback = _SaveAt(trainer, step)
        setattr(callback, event, callback.save)
        trainer.add_callback(callback)
    return trainer


class _Saving:
    """The function above, with its settings, for other processes."""

    def __init__(self, *settings: Any) -> None:
        self.settings = settings

    def __call__(self, *arguments: Any) -> Any:
        return saving_trainer(*self.settings, *arguments)


EVENTS = ("on_step_begin", "on_substep_end", "on_pre_optimizer_step")


@pytest.mark.parametrize("accumulated", few_of([1, 4], [4]))
@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=DEFECT)], ids=["epochs", "stream"])
@pytest.mark.parametrize("event", few_of(EVENTS, ["on_substep_end"]))
def test_checkpoint_saved_by_a_callback_leads_on(
    event: str, stream: bool, accumulated: int, tmp_path: Path, model: str
) -> None:
    """In the middle of an accumulated step, too, whose batches come again."""
    if event == "on_substep_end" and accumulated == 1:
        pytest.skip("without accumulation, a step has no parts")
    build: Callable[..., Any] = streaming_trainer if stream else runs.sentence_transformer_trainer
    arguments = {"gradient_accumulation_steps": accumulated, "save_strategy": "no"}
    run = Run(str(tmp_path), model, rows=(64 * accumulated,), sampler="batch_sampler", trainer=build)
    run = replace(run, arguments={**arguments, **({"max_steps": 20} if stream else {})})
    (whole,) = attempt(1, run)
    attempt(1, replace(run, trainer=_Saving(event, 11, build)))
    assert attempt(1, continued(run)) == [whole[11 * accumulated :]]


class _Afterwards:
    """Saves a checkpoint after ``train`` has returned, as some user interfaces do."""

    def __call__(self, run: Run, *rest: Any) -> Any:
        trainer = runs.sentence_transformer_trainer(run, *rest)
        train_once = trainer.train

        def train_and_save(**kwargs: Any) -> None:
            train_once(**kwargs)
            trainer._save_checkpoint(trainer.model, trial=None)

        trainer.train = train_and_save
        return trainer


@pytest.mark.wide
def test_checkpoint_saved_after_a_run_leads_on_to_more_epochs(tmp_path: Path, model: str) -> None:
    """The first of three epochs, then the others."""
    run = Run(str(tmp_path), model, rows=(48,), sampler="batch_sampler", arguments={"save_strategy": "no"})
    (whole,) = attempt(1, run)
    assert attempt(1, replace(run, epochs=1, trainer=_Afterwards())) == [whole[:6]]
    assert attempt(1, continued(run)) == [whole[6:]]


# Processes, rows of a batch, accumulated batches: the same global batch of 16. 100 rows leave a rest on one process
LAYOUTS = {"2 × 8": (2, 8, 1), "1 × 16": (1, 16, 1), "1 × 8, twice": (1, 8, 2)}
MOVES = [("2 × 8", "1 × 16"), ("1 × 16", "2 × 8"), ("2 × 8", "1 × 8, twice"), ("1 × 8, twice", "2 × 8")]


def laid_out(layout: str, folder: Path, model: str) -> tuple[int, Run]:
    """A run of three epochs in a layout."""
    world_size, batch_size, accumulated = LAYOUTS[layout]
    arguments = {"gradient_accumulation_steps": accumulated}
    return world_size, Run(
        str(folder), model, (100,), batch_size, sampler="batch_sampler", arguments=arguments, trainer=None
    )


@DEFECT
@pytest.mark.parametrize("move", few_of(MOVES, MOVES[:1]))
def test_run_goes_on_with_other_processes(move: tuple[str, str], tmp_path: Path, model: str) -> None:
    """Stopped after two steps of epoch 1, it has the rest of that epoch's rows next, in their order."""
    before, after = move
    world_size, run = laid_out(before, tmp_path / "run", model)
    epoch = 6 if before == "2 × 8" else 7
    attempt(world_size, replace(run, stop_after=epoch + 2))
    whole_size, whole = laid_out(after, tmp_path / "whole", model)
    ranks = attempt(whole_size, whole)
    first = sum(len(batch) for batch in chain(*ranks)) // 3  # rows of an epoch
    expected = [row for step in zip(*ranks) for batch in step for row in batch][first + 32 :][:64]
    resumed = attempt(whole_size, continued(replace(whole, folder=run.folder)))
    assert not isinstance(resumed[0], str), resumed[0]
    actual = [row for step in zip(*resumed) for batch in step for row in batch][:64]
    assert [sorted(actual[i : i + 16]) for i in range(0, 64, 16)] == [
        sorted(expected[i : i + 16]) for i in range(0, 64, 16)
    ]
