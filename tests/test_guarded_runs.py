"""What a run says of its order, on real trainers with 1, 2 and 3 processes; things are broken on purpose.

Tests marked ``defect`` fail on the pristine release (``make test-pristine`` shows it).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader, DistributedSampler

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, continued, train

ROWS, EPOCHS = 96, 3
LOGGING = {"logging_strategy": "epoch"}


@dataclass(frozen=True)
class Outcome:
    """What one process makes of a run: the fingerprints it logged, what the guard said, and how it ended."""

    orders: list[str]
    messages: list[str]
    error: str
    seconds: float


def attempt(run: Run) -> Outcome:
    """Train as told, and survive what goes wrong."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sentence_transformers.base.guard").addHandler(handler)
    trainers: list[Any] = []
    build = run.trainer or runs.sentence_transformer_trainer
    kept = replace(run, trainer=lambda *args: trainers.append(build(*args)) or trainers[0])
    error, start = "", time.monotonic()
    try:
        train(kept)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    logs = trainers[0].state.log_history if trainers else []
    return Outcome([log["epoch_order"] for log in logs if "epoch_order" in log], said, error, time.monotonic() - start)


def run_of(folder: Path, model: str, **changes: Any) -> Run:
    """A run of three epochs with the default sampler."""
    run = Run(str(folder), model, rows=(ROWS,), epochs=EPOCHS, sampler="batch_sampler", arguments=LOGGING)
    return replace(run, **changes)


LAUNCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "1 x 16": (1, {"batch_size": 16}),
    "2 x 8": (2, {}),
    "split": (2, {"batch_size": 16, "accelerator": {"split_batches": True}}),
    "dispatch": (2, {"accelerator": {"dispatch_batches": True}}),
    "dispatch, split": (2, {"batch_size": 16, "accelerator": {"dispatch_batches": True, "split_batches": True}}),
    "workers": (2, {"arguments": {**LOGGING, "dataloader_num_workers": 2, "dataloader_persistent_workers": True}}),
    "accumulation": (2, {"arguments": {**LOGGING, "gradient_accumulation_steps": 4}}),
}


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory, model: str) -> Callable[[str], list[str]]:
    """The fingerprints of a whole run, which all of its processes log; made once for each launch mode."""

    @cache
    def make(launch: str) -> list[str]:
        world_size, changes = LAUNCHES[launch]
        outcomes = run_ranks(world_size, attempt, run_of(tmp_path_factory.mktemp("whole"), model, **changes))
        assert [(outcome.messages, outcome.error) for outcome in outcomes] == [([], "")] * world_size
        (logged,) = {tuple(outcome.orders) for outcome in outcomes}
        return list(logged)

    return make


@pytest.mark.parametrize("launch", LAUNCHES)
def test_every_launch_mode_logs_the_fingerprints_of_the_plan(launch: str, orders: Any) -> None:
    """For one global batch, each epoch has the same fingerprint in each mode and on each rank, and one of its own."""
    assert orders(launch) == orders("1 x 16")
    assert len(set(orders(launch))) == EPOCHS


@pytest.mark.slow
@pytest.mark.parametrize("gathers", [True, False], ids=["across devices", "for each device"])
def test_the_fingerprints_of_planned_batches_are_the_same_on_one_process_and_two(
    gathers: bool, tmp_path: Path, model: str
) -> None:
    """Where batches are planned across devices; where each device has batches of its own, another plan shows."""
    run = run_of(tmp_path, model, rows=(100,), sampler="no_duplicates_planned")
    two = run_ranks(2, attempt, replace(run, arguments={**LOGGING, "plan_across_devices": gathers}))
    one = run_ranks(1, attempt, replace(run, batch_size=16))
    assert [outcome.error for outcome in two + one] == ["", "", ""]
    assert two[0].orders == two[1].orders
    assert (two[0].orders == one[0].orders) == gathers


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [
        runs.cross_encoder_trainer,
        runs.sparse_encoder_trainer,
        runs.multi_vector_encoder_trainer,
        runs.own_loader_trainer,
        runs.evaluating_trainer,
    ],
)
def test_every_trainer_logs_the_fingerprints(trainer: Any, tmp_path: Path, model: str, orders: Any) -> None:
    """Each trainer, also one that evaluates, and one whose loader a user has overridden."""
    for outcome in run_ranks(2, attempt, run_of(tmp_path, model, trainer=trainer)):
        assert (outcome.orders, outcome.messages, outcome.error) == (orders("2 x 8"), [], "")


def other_data(change: str, run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A trainer that is built on another process from something else than on the others."""
    if os.environ.get("RANK") == "1":
        rows = list(range(len(dataset)))
        if change == "a row changed":
            last = {**dataset[-1], "anchor": "Atlantis"}
            dataset = Dataset.from_list([*dataset.select(rows[:-1]), last], features=dataset.features)
        elif change == "two rows swapped":
            dataset = dataset.select([rows[-1], *rows[1:-1], rows[0]])
        elif change == "a row more":
            dataset = dataset.select([*rows, 0])
        elif change == "half of the rows":
            dataset = dataset.select(rows[: len(rows) // 2])
        elif change == "seed":
            arguments = {**arguments, "seed": 43}
        elif change == "batch size":
            arguments = {**arguments, "per_device_train_batch_size": 4}
    return runs.sentence_transformer_trainer(run, arguments, dataset)


STOPPED = {
    "a row changed": "contents of train_dataset: ",
    "two rows swapped": "contents of train_dataset: ",
    "a row more": "rows of train_dataset: 96 on ",
    "half of the rows": "steps in an epoch: ",
    "seed": "seed: 42 on ",
    "batch size": "batch size over all processes: 16 on ",
}
HANGS = ("half of the rows", "batch size")  # as released, until PyTorch gives up


@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=() if name in HANGS else pytest.mark.defect) for name in STOPPED]
)
def test_a_rank_given_other_data_stops_the_run(change: str, tmp_path: Path, model: str) -> None:
    """All ranks end at once, before a step, with an error that says who disagrees about what."""
    run = run_of(tmp_path, model, trainer=partial(other_data, change))
    for outcome in run_ranks(2, attempt, run):
        assert outcome.error.startswith("RanksDisagree") and STOPPED[change] in outcome.error
        assert "on rank 0" in outcome.error and "on rank 1" in outcome.error
        assert outcome.orders == [] and outcome.seconds < 30
    assert not list(tmp_path.glob("rows-*"))


@pytest.mark.slow
def test_the_rank_that_differs_is_named_among_three(tmp_path: Path, model: str) -> None:
    """Two agree, one does not."""
    for outcome in run_ranks(3, attempt, run_of(tmp_path, model, trainer=partial(other_data, "seed"))):
        assert "seed: 42 on ranks 0, 2, 43 on rank 1" in outcome.error


@pytest.mark.slow
def test_a_dispatching_run_does_not_ask_for_data_that_is_not_read(tmp_path: Path, model: str, orders: Any) -> None:
    """The main process alone reads; what the others hold in its place is their business, but for its length."""
    run = run_of(tmp_path, model, accelerator={"dispatch_batches": True}, trainer=partial(other_data, "a row changed"))
    assert [outcome.orders for outcome in run_ranks(2, attempt, run)] == [orders("dispatch")] * 2
    shorter = replace(run, trainer=partial(other_data, "half of the rows"))
    for outcome in run_ranks(2, attempt, shorter):
        assert "steps in an epoch: 6 on rank 0, 3 on rank 1" in outcome.error and outcome.seconds < 30


class DrawsByTheRank(runs.WrittenByAUser):
    """Disagrees about every epoch, from a row on."""

    first = 0

    def __iter__(self) -> Any:
        batches = list(super().__iter__())
        if os.environ.get("RANK") == "1":
            batches[self.first :] = reversed(batches[self.first :])
        return iter(batches)


class DrawsTheEndByTheRank(DrawsByTheRank):
    """Disagrees about the last batches."""

    first = 4


@pytest.mark.defect
@pytest.mark.parametrize("sampler", [DrawsByTheRank, DrawsTheEndByTheRank])
def test_ranks_whose_samplers_disagree_stop(sampler: Any, tmp_path: Path, model: str) -> None:
    """About the first rows: before the first step. About later ones: at the end of the epoch, before it is logged."""
    run = run_of(tmp_path, model, sampler=partial(sampler))
    for outcome in run_ranks(2, attempt, run):
        assert outcome.error.startswith("RanksDisagree") and outcome.seconds < 30
        assert ("the first rows: " if sampler is DrawsByTheRank else "order of the epoch: ") in outcome.error
        assert outcome.orders == []


def test_off_lets_every_rank_have_its_own(tmp_path: Path, model: str) -> None:
    """With ``order_guard="off"``, nothing is compared, and the fingerprints are logged."""
    arguments = {**LOGGING, "order_guard": "off"}
    run = run_of(tmp_path, model, trainer=partial(other_data, "seed"), arguments=arguments)
    first, second = run_ranks(2, attempt, run)
    assert first.error == second.error == "" and len(first.orders) == EPOCHS
    assert first.orders != second.orders


class Tells(runs.WrittenByAUser):
    """Has an argument that does not decide the order."""

    def __init__(self, *args: Any, verbose: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbose = verbose


def tells_on_the_main_process(dataset: Dataset, **kwargs: Any) -> Tells:
    """Differs from process to process."""
    return Tells(dataset, verbose=os.environ.get("RANK") == "0", **kwargs)


def test_an_argument_that_does_not_decide_the_order_may_differ(tmp_path: Path, model: str) -> None:
    """What counts are the rows."""
    for outcome in run_ranks(2, attempt, run_of(tmp_path, model, sampler=tells_on_the_main_process)):
        assert (len(outcome.orders), outcome.messages, outcome.error) == (EPOCHS, [], "")


class ShareOfItsOwn(runs.SentenceTransformerTrainer):
    """Loads as PyTorch's tutorials do: each process has a sampler of its own."""

    def get_train_dataloader(self) -> Any:
        """Not prepared by accelerate."""
        sampler: Any = DistributedSampler(self.train_dataset, seed=1)
        return DataLoader(self.train_dataset, batch_size=8, sampler=sampler, collate_fn=self.data_collator)


class PartOfItsOwn(runs.SentenceTransformerTrainer):
    """Each process reads a part of its own, again and again, until `max_steps`."""

    def get_train_dataloader(self) -> Any:
        """Passes of 5 steps on the one and of 7 on the other."""
        part = self.train_dataset.select(range(40) if os.environ.get("RANK") == "0" else range(40, ROWS))
        sampler: Any = DistributedSampler(part, num_replicas=1, rank=0)
        return DataLoader(part, batch_size=8, sampler=sampler, collate_fn=self.data_collator)


def own_order_trainer(kind: Any, run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A trainer whose processes do not share a plan."""
    trainer = runs.sentence_transformer_trainer(run, {**arguments, "max_steps": 12}, dataset)
    trainer.__class__ = kind
    return trainer


@pytest.mark.parametrize("kind", [ShareOfItsOwn, PartOfItsOwn])
def test_processes_with_orders_of_their_own_are_left_alone(kind: Any, tmp_path: Path, model: str) -> None:
    """They need not end a pass together, and go on from a checkpoint of the main process in silence."""
    arguments = {"logging_strategy": "steps"}  # the loss of an epoch is of all processes, and so waits for all
    trainer = partial(own_order_trainer, kind)
    run = run_of(tmp_path, model, trainer=trainer, arguments=arguments, stop_after=8)
    for one in (run, continued(run)):
        for outcome in run_ranks(2, attempt, one):
            assert (outcome.messages, outcome.error) == ([], "")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, model: str) -> Callable[..., Run]:
    """The run that goes on from one stopped in the middle of epoch 1; made once for each launch mode and sampler."""

    @cache
    def make(launch: str, sampler: str = "batch_sampler", across: bool = False) -> Run:
        world_size, changes = LAUNCHES[launch]
        arguments = {**LOGGING, "plan_across_devices": True} if across else LOGGING
        run = run_of(tmp_path_factory.mktemp("stopped"), model, arguments=arguments, sampler=sampler, stop_after=8)
        outcomes = run_ranks(world_size, attempt, replace(run, **changes))
        assert [outcome.error for outcome in outcomes] == [""] * world_size
        return continued(replace(run, **changes))

    return make


@pytest.mark.parametrize("launch", ["1 x 16", "2 x 8", "split", "dispatch"])
def test_a_continuation_is_silent_and_has_the_fingerprints_of_the_whole_run(
    launch: str, stopped: Any, orders: Any
) -> None:
    """With "strict", too; the resumed epoch has the fingerprint of the uninterrupted one."""
    run = stopped(launch)
    strict = replace(run, arguments={**run.arguments, "order_guard": "strict"})
    for outcome in run_ranks(LAUNCHES[launch][0], attempt, strict):
        assert (outcome.orders, outcome.messages, outcome.error) == (orders(launch), [], "")


@pytest.mark.parametrize(
    ("before", "now", "sampler", "across"),
    [
        ("2 x 8", "1 x 16", "batch_sampler", False),
        ("1 x 16", "2 x 8", "batch_sampler", False),
        ("dispatch", "1 x 16", "batch_sampler", False),
        ("2 x 8", "1 x 16", "no_duplicates_planned", True),
    ],
)
def test_another_world_size_with_the_same_plan_passes(
    before: str, now: str, sampler: str, across: bool, stopped: Any
) -> None:
    """The same global batch, drawn from the same plan: nothing is said, with "strict" nothing stops."""
    changes = LAUNCHES[now][1]
    run = stopped(before, sampler, across)
    run = replace(run, **{"batch_size": 8, "accelerator": {}, **changes})
    run = replace(run, arguments={**run.arguments, "order_guard": "strict"})
    for outcome in run_ranks(LAUNCHES[now][0], attempt, run):
        assert (outcome.messages, outcome.error, len(outcome.orders)) == ([], "", EPOCHS)


def test_another_world_size_with_another_plan_is_said(stopped: Any) -> None:
    """`no_duplicates` draws the batches of each device: 1 x 16 is not 2 x 8."""
    run = replace(stopped("2 x 8", "no_duplicates"), batch_size=16)
    (outcome,) = run_ranks(1, attempt, run)
    (message,) = outcome.messages
    assert "sampler: NoDuplicatesBatchSampler(batch_size=8" in message
    assert "now NoDuplicatesBatchSampler(batch_size=16" in message


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"rows": (ROWS + 1,)}, "data of train_dataset: 96 rows, now 97"),
    "seed": ({"arguments": {**LOGGING, "seed": 43}}, "seed: 42, now 43"),
    "batch size": ({"batch_size": 4}, "batch size over all processes: 16, now 8"),
    "sampler": ({"sampler": "no_duplicates_planned"}, "now PlannedNoDuplicatesBatchSampler("),
}


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["2 x 8", "dispatch"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_said_by_the_main_process_once(change: str, launch: str, stopped: Any) -> None:
    """The others are silent, and the run goes on."""
    changes, expected = CHANGES[change]
    first, second = run_ranks(2, attempt, replace(stopped(launch), **changes))
    (message,) = first.messages
    assert expected in message and "Epoch 1 was stopped after 32 rows" in message
    assert first.error == second.error == "" and second.messages == []


@pytest.mark.parametrize("launch", ["2 x 8", "dispatch"])
def test_strict_stops_every_rank(launch: str, stopped: Any) -> None:
    """With the same error on each, without waiting for one another."""
    run = replace(stopped(launch), arguments={**LOGGING, "seed": 43, "order_guard": "strict"})
    for outcome in run_ranks(2, attempt, run):
        assert outcome.error.startswith("OrderChanged") and "seed: 42, now 43" in outcome.error
        assert outcome.seconds < 30


def test_a_truncated_identity_is_reported(stopped: Any, tmp_path: Path) -> None:
    """By the main process, once; the run goes on."""
    run = replace(stopped("2 x 8", "no_duplicates"), arguments={**LOGGING, "order_guard": "strict"})
    (path,) = Path(run.folder).glob("checkpoint-8/order.json")
    whole = path.read_text()
    path.write_text(whole[:100])
    first, second = run_ranks(2, attempt, run)
    path.write_text(whole)
    (message,) = first.messages
    assert "cannot be told" in message and str(path) in message
    assert first.error == second.error == "" and second.messages == []


def test_a_killed_run_goes_on_in_silence(tmp_path: Path, model: str, orders: Any) -> None:
    """SIGKILL leaves a checkpoint whose identity is whole."""
    run = run_of(tmp_path, model, kill_after=9)
    run_ranks(2, attempt, run, exitcode=-9)
    assert [path.name for path in tmp_path.glob("checkpoint-8/order*")] == ["order.json"]
    for outcome in run_ranks(2, attempt, continued(run)):
        assert (outcome.orders, outcome.messages, outcome.error) == (orders("2 x 8"), [], "")


def as_nobody(run: Run) -> Outcome:
    """Train as a user who may not write into the folder, in which `rows-0.jsonl` is already."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        return attempt(run)
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all(model: str) -> Iterator[Path]:
    """A folder that others may look into, with the model; pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(model, Path(folder, "model"))
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
def test_a_read_only_folder_fails_as_without_the_guard(open_to_all: Path) -> None:
    """A run that saves nothing trains; one that saves fails where the trainer writes, and the guard has said why."""
    folder = open_to_all / "run"
    folder.mkdir()
    (folder / "rows-0.jsonl").touch()
    (folder / "rows-0.jsonl").chmod(0o666)
    folder.chmod(0o555)
    run = run_of(folder, str(open_to_all / "model"))
    (outcome,) = run_ranks(1, as_nobody, run)
    assert (outcome.messages, outcome.error, len(outcome.orders)) == ([], "", EPOCHS)
    (outcome,) = run_ranks(1, as_nobody, replace(run, stop_after=2))
    (message,) = outcome.messages
    assert "cannot be written" in message and "Permission denied" in message
    assert outcome.error.startswith("PermissionError")


def stream_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """Streams the rows, which processes get dispatched by default."""
    trainer = runs.sentence_transformer_trainer(run, {**arguments, "max_steps": 9}, dataset.to_iterable_dataset())
    trainer.data_collator = runs.FixedShapes(trainer.data_collator)
    return trainer


@pytest.mark.parametrize("stop_after", [2, 6, 8], ids=["first pass", "its end", "second pass"])
def test_streams_have_no_fingerprint_and_stop_nobody(stop_after: int, tmp_path: Path, model: str) -> None:
    """Two processes train on a stream, in passes of 6 steps, and go on from a checkpoint."""
    run = run_of(tmp_path, model, trainer=stream_trainer, stop_after=stop_after)
    for one in (run, continued(run)):
        for outcome in run_ranks(2, attempt, one):
            assert (outcome.orders, outcome.messages, outcome.error) == ([], [], "")


@pytest.mark.slow
def own_stream_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """Each process streams rows of its own, the first one fewer; to log an epoch's loss, it would wait for others."""
    rows = 40 if os.environ["RANK"] == "0" else 70
    arguments |= {"accelerator_config": {"dispatch_batches": False}, "logging_strategy": "no"}
    arguments |= {"max_steps": 8, "ddp_timeout": 30}
    return runs.sentence_transformer_trainer(run, arguments, dataset.take(rows).to_iterable_dataset())


def test_streams_of_unequal_length_do_not_wait_for_each_other(tmp_path: Path, model: str) -> None:
    """Where processes end their passes at different steps, as they may, no one waits for the others there."""
    run = run_of(tmp_path, model, trainer=own_stream_trainer, sampler="batch_sampler")
    assert [outcome.error for outcome in run_ranks(2, attempt, run, timeout=60)] == ["", ""]


def test_datasets_are_named(tmp_path: Path, model: str) -> None:
    """Of several datasets, the one that changed is."""
    run = run_of(tmp_path, model, rows=(48, 48), stop_after=8, sampler="no_duplicates")
    run_ranks(2, attempt, run)
    first, _ = run_ranks(2, attempt, replace(continued(run), rows=(48, 49)))
    (message,) = first.messages
    assert "data of part1: 48 rows, now 49" in message and "part0" not in message.split("What has changed:")[1]
    identity = json.loads(next(tmp_path.glob("checkpoint-8/order.json")).read_text())
    assert [data["name"] for data in identity["datasets"]] == ["part0", "part1"]
    assert isinstance(runs.datasets_of(run), DatasetDict)
