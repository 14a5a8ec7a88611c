"""The planned sampler in real runs: every row once, equal steps, no value twice, resumed, on one process and several.

On the pristine release, one process and plain DDP over one dataset are tested; the rest needs the hook by which a
batch sampler says how processes share its batches.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers.base.trainer import BaseTrainer

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.properties import Steps, epochs_of
from conformance.runs import Run, continued, train
from sentence_transformers.planned import PlannedNoDuplicatesBatchSampler

ROWS, EPOCHS = 107, 2  # no batch size below divides the rows
HOOKED = "share_batches" in inspect.getsource(BaseTrainer._build_dataloader)
DISPATCHES_STEPS = "dispatch_by_step" in inspect.getsource(BaseTrainer.get_train_dataloader)
# Under DDP the release resumes the first epoch alone.
RESUMED_EPOCHS = 2 if find_spec("sentence_transformers.base.epoch") else 1
WIDE = pytest.mark.wide
needs_hook = pytest.mark.skipif(not HOOKED, reason="the release shards batches itself, whatever the sampler says")
LAUNCHES = {
    "single": (1, {}),
    "ddp": (2, {}),
    "ddp-3": (3, {}),
    "split": (2, {"split_batches": True}),
    "dispatch": (2, {"dispatch_batches": True}),
    "dispatch-split": (2, {"dispatch_batches": True, "split_batches": True}),
}
OF_THE_HOOK = ["split", "dispatch", "dispatch-split"]


def launched(launch: str, folder: Path, model: str, options: dict[str, Any], **changes: Any) -> tuple[int, Run]:
    """The number of processes, and the run of each, with the sampler's options."""
    world_size, accelerator = LAUNCHES[launch]
    sampler = partial(PlannedNoDuplicatesBatchSampler, **options) if options else PlannedNoDuplicatesBatchSampler
    settings = {"rows": (ROWS,), "epochs": EPOCHS, "sampler": sampler, "accelerator": accelerator, **changes}
    return world_size, Run(str(folder), model, **settings)


def steps_of(ranks: list[Steps], epoch: int, epochs: int = EPOCHS) -> list[list[list[int]]]:
    """The batches of all ranks, by step, of one epoch; the ranks take equal numbers of steps."""
    assert len({len(steps) for steps in ranks}) == 1
    return [list(step) for step in zip(*(epochs_of(steps, epochs)[epoch] for steps in ranks))]


def joined(parts: list[list[Any]]) -> list[Any]:
    """The rows of a step, over all ranks; or the batches of several steps."""
    return [part for parts_of_one in parts for part in parts_of_one]


def values_twice(rows: list[int]) -> bool:
    """Whether a text is in two of the rows."""
    texts = [set(pair) for pair in map(runs.PAIRS.__getitem__, rows)]
    return sum(map(len, texts)) > len(set().union(*texts))


@pytest.mark.parametrize(
    ("launch", "across"),
    [
        ("single", True),
        ("ddp", True),
        pytest.param("ddp-3", False, marks=WIDE),
        pytest.param("split", True, marks=needs_hook),
        pytest.param("dispatch", True, marks=[needs_hook, WIDE]),
        pytest.param("dispatch-split", True, marks=[needs_hook, WIDE]),
    ],
)
def test_every_row_once_in_equal_steps_without_duplicates(
    launch: str, across: bool, tmp_path: Path, model: str
) -> None:
    """Each epoch has ``ceil(rows / global batch)`` steps on each rank, all rows once, full batches but in the last."""
    world_size, run = launched(launch, tmp_path, model, {} if across else {"across_devices": False})
    ranks = run_ranks(world_size, train, run)
    size = run.batch_size // world_size if run.accelerator.get("split_batches") else run.batch_size
    equal = "dispatch_batches" in run.accelerator
    for epoch in range(EPOCHS):
        steps = steps_of(ranks, epoch)
        assert len(steps) == -(-ROWS // (size * world_size))
        assert all(len(batch) == size for step in steps[:-1] for batch in step)
        assert all(1 <= len(batch) <= size for batch in steps[-1])
        seen = joined(joined(steps))
        assert len(seen) == len(set(seen)) == (ROWS - ROWS % world_size if equal else ROWS)
        assert not any(values_twice(batch) for step in steps for batch in step)
        assert not across or not any(values_twice(joined(step)) for step in steps)
    assert steps_of(ranks, 0) != steps_of(ranks, 1)


@pytest.mark.parametrize(
    "launch",
    [
        pytest.param("single", marks=WIDE),
        "ddp",
        pytest.param("split", marks=[needs_hook, WIDE]),
        pytest.param("dispatch", marks=needs_hook),
        pytest.param("dispatch-split", marks=[needs_hook, WIDE]),
    ],
)
def test_a_resumed_run_continues_the_plan(launch: str, tmp_path: Path, model: str) -> None:
    """The rows before and after the cut are those of the uninterrupted run."""
    world_size, run = launched(launch, tmp_path / "whole", model, {}, epochs=RESUMED_EPOCHS)
    if "dispatch" in launch and not DISPATCHES_STEPS:
        pytest.skip("accelerate skips batches, not steps, when dispatching")
    whole = run_ranks(world_size, train, run)
    cut = replace(run, folder=str(tmp_path / "cut"), stop_after=len(whole[0]) - 3)
    before = run_ranks(world_size, train, cut)
    after = run_ranks(world_size, train, continued(cut))
    assert [one + other for one, other in zip(before, after)] == whole


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, model: str) -> None:
    """Begun on 2 × 8 and continued on 1 × 16, or the other way, a run has the same rows at each step."""
    _, narrow = launched("single", tmp_path / "narrow", model, {}, batch_size=16, epochs=RESUMED_EPOCHS)
    (whole,) = run_ranks(1, train, narrow)
    cut = len(whole) - 3

    begun_wide = replace(narrow, folder=str(tmp_path / "wide"), batch_size=8, stop_after=cut)
    before = [joined(step) for step in zip(*run_ranks(2, train, begun_wide))]
    (after,) = run_ranks(1, train, replace(continued(begun_wide), batch_size=16))
    assert before + after == whole

    begun_narrow = replace(narrow, folder=str(tmp_path / "narrow, cut"), stop_after=cut)
    (before,) = run_ranks(1, train, begun_narrow)
    after = [joined(step) for step in zip(*run_ranks(2, train, replace(continued(begun_narrow), batch_size=8)))]
    assert before + after == whole


def test_a_gathering_loss_gets_parts_of_one_length(tmp_path: Path, model: str) -> None:
    """With the hook the loss says so, without it the option; a row that is too many is left out, others each epoch."""
    options = {} if HOOKED else {"equal_parts": True}
    _, run = launched("ddp", tmp_path, model, options, trainer=runs.gathering_trainer)
    ranks = run_ranks(2, train, run)
    for epoch in range(EPOCHS):
        steps = steps_of(ranks, epoch)
        assert all(len(one) == len(other) for one, other in steps)
        assert len(set(joined(joined(steps)))) == ROWS - 1


def test_drop_last_step_is_the_users_choice(tmp_path: Path, model: str) -> None:
    """Under DDP, with ``drop_last_step`` each batch is full and other rows are left out in each epoch."""
    _, run = launched("ddp", tmp_path, model, {"drop_last_step": True})
    ranks = run_ranks(2, train, run)
    used = [set(joined(joined(steps_of(ranks, epoch)))) for epoch in range(EPOCHS)]
    assert [len(rows) for rows in used] == [ROWS // 16 * 16] * EPOCHS
    assert used[0] != used[1]


@needs_hook
@pytest.mark.parametrize(
    ("launch", "multi"),
    [
        ("ddp", "proportional"),
        pytest.param("ddp", "round_robin", marks=WIDE),
        pytest.param("split", "proportional", marks=WIDE),
    ],
)
def test_several_datasets_have_exact_lengths(launch: str, multi: str, tmp_path: Path, model: str) -> None:
    """Proportional sampling uses each row of each dataset once; round robin takes as many steps of each."""
    sizes = (53, 70, 37)
    world_size, run = launched(launch, tmp_path, model, {}, rows=sizes, multi=multi, epochs=1)
    steps = steps_of(run_ranks(world_size, train, run), 0, epochs=1)
    seen = joined(joined(steps))
    assert len(seen) == len(set(seen))
    if multi == "proportional":
        assert sorted(seen) == list(range(sum(sizes)))
    parts = [range(53), range(53, 123), range(123, 160)]
    assert all(any(set(joined(step)) <= set(part) for part in parts) for step in steps)


def test_several_datasets_on_one_process_use_each_row_once(tmp_path: Path, model: str) -> None:
    """Also on the release."""
    sizes = (53, 70, 37)
    _, run = launched("single", tmp_path, model, {}, rows=sizes, epochs=1)
    (steps,) = run_ranks(1, train, run)
    assert sorted(joined(steps)) == list(range(sum(sizes)))


def test_training_evaluates_on_planned_batches(tmp_path: Path, model: str) -> None:
    """An evaluation set is read with the same sampler, on two processes, and the run goes on after it."""
    _, run = launched("ddp", tmp_path, model, {}, trainer=runs.evaluating_trainer)
    whole = steps_of(run_ranks(2, train, run), 0)
    assert sorted(joined(joined(whole))) == list(range(ROWS))


@needs_hook
def test_a_trainer_with_a_loader_of_its_own_shares_batches(tmp_path: Path, model: str) -> None:
    """``get_train_dataloader`` overridden with upstream's code takes the hook along."""
    _, run = launched("split", tmp_path, model, {}, trainer=runs.own_loader_trainer, epochs=1)
    assert sorted(joined(joined(steps_of(run_ranks(2, train, run), 0, epochs=1)))) == list(range(ROWS))


@needs_hook
def test_a_split_that_is_not_even_is_refused(tmp_path: Path, model: str) -> None:
    """Three processes cannot share batches of 8 rows; the message says so and what to do."""
    _, run = launched("ddp-3", tmp_path, model, {}, accelerator={"split_batches": True})
    said = r"3 processes cannot share batches of 8 rows equally\. Use a batch size that 3 divides"
    with pytest.raises(RankFailed, match=said):
        run_ranks(3, train, run)


def test_fewer_rows_than_processes_are_refused(tmp_path: Path, model: str) -> None:
    """Two rows are too few for three processes."""
    _, run = launched("ddp-3", tmp_path, model, {}, rows=(2,))
    with pytest.raises(RankFailed, match="2 rows without duplicates cannot be shared by 3 processes"):
        run_ranks(3, train, run)
