"""What a resumed run says of its order, on real trainers with 1 and 2 processes; things are broken on purpose."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from guarded import EPOCHS, LAUNCHES, LOGGING, ROWS, Outcome, attempt, run_of

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, continued


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


def with_one_value_changed(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A trainer whose data has one other value than that of the run before."""
    last = {**dataset[-1], "anchor": "Atlantis"}
    dataset = Dataset.from_list([*dataset.select(range(len(dataset) - 1)), last], features=dataset.features)
    return runs.sentence_transformer_trainer(run, arguments, dataset)


def test_another_value_in_the_same_order_is_no_other_order(stopped: Any) -> None:
    """The rows have the same numbers, which is all that is said of them."""
    (outcome,) = run_ranks(1, attempt, replace(stopped("1 x 16"), trainer=with_one_value_changed))
    (message,) = outcome.messages
    assert "other values" in message and "these rows may hold other values" in message
    assert "seen twice" not in message


class CachesSomewhere(runs.WrittenByAUser):
    """Has arguments that do not decide the order."""

    def __init__(self, *args: Any, cache_dir: str, num_proc: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cache_dir, self.num_proc = cache_dir, num_proc


def test_arguments_that_make_no_difference_may_change(tmp_path: Path, model: str) -> None:
    """What counts are the rows taken."""
    sampler = partial(CachesSomewhere, cache_dir="/a", num_proc=1)
    run = run_of(tmp_path, model, sampler=sampler, stop_after=14, arguments={**LOGGING, "order_guard": "strict"})
    run_ranks(1, attempt, run)
    run = replace(continued(run), sampler=partial(CachesSomewhere, cache_dir="/b", num_proc=2))
    (outcome,) = run_ranks(1, attempt, run)
    assert (outcome.messages, outcome.error) == ([], "")


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
