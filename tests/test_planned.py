"""``batch_sampler="no_duplicates_planned"`` in real runs: every row once, equal steps, no value twice, elastic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.properties import Steps, epochs_of
from conformance.runs import Run, continued, train
from conformance.scenarios import BY_NAME
from sentence_transformers.base.planned import PlannedNoDuplicatesBatchSampler

ROWS, EPOCHS = 107, 2  # no batch size below divides the rows
LAUNCHES = ["single", "ddp", "ddp-3", "even_batches", "split", "dispatch", "dispatch-split"]


def launched(launch: str, folder: Path, model: str, across: bool | None, **changes: Any) -> tuple[int, Run]:
    """The number of processes, and the run of each, with batches planned across devices or not."""
    scenario = BY_NAME["ddp" if launch == "even_batches" else launch]
    arguments = {"plan_across_devices": across, **changes.pop("arguments", {})}
    settings = {"rows": (ROWS,), "epochs": EPOCHS, "sampler": "no_duplicates_planned", "arguments": arguments}
    if launch == "even_batches":
        settings["accelerator"] = {"even_batches": True}
    return scenario.world_size, replace(scenario.run(str(folder), model), **{**settings, **changes})


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


@pytest.mark.parametrize("across", [True, False], ids=["across devices", "each device"])
@pytest.mark.parametrize("launch", LAUNCHES)
def test_every_row_once_in_equal_steps_without_duplicates(
    launch: str, across: bool, tmp_path: Path, model: str
) -> None:
    """Each epoch has ``ceil(rows / global batch)`` steps on each rank, all rows once, full batches but in the last."""
    world_size, run = launched(launch, tmp_path, model, across)
    ranks = run_ranks(world_size, train, run)
    size = run.batch_size // world_size if run.accelerator.get("split_batches") else run.batch_size
    dispatches = "dispatch_batches" in run.accelerator
    for epoch in range(EPOCHS):
        steps = steps_of(ranks, epoch)
        assert len(steps) == -(-ROWS // (size * world_size))
        assert all(len(batch) == size for step in steps[:-1] for batch in step)
        assert all(1 <= len(batch) <= size for batch in steps[-1])
        seen = [row for step in steps for batch in step for row in batch]
        assert len(seen) == len(set(seen))
        assert len(seen) == ROWS or (dispatches and len({len(batch) for batch in steps[-1]}) == 1)
        assert len(seen) == ROWS - ROWS % world_size or not (dispatches and across)
        assert not any(values_twice(batch) for step in steps for batch in step)
        if across:
            assert not any(values_twice(joined(step)) for step in steps)
    assert steps_of(ranks, 0) != steps_of(ranks, 1)


@pytest.mark.slow
@pytest.mark.parametrize("launch", [name for name in LAUNCHES if name != "even_batches"])
@pytest.mark.parametrize("across", [True, False], ids=["across devices", "each device"])
def test_resumed_run_continues_the_plan(launch: str, across: bool, tmp_path: Path, model: str) -> None:
    """Cut in the middle of epoch 1, the rows before and after are those of the uninterrupted run."""
    world_size, run = launched(launch, tmp_path / "whole", model, across)
    whole = run_ranks(world_size, train, run)
    cut = replace(run, folder=str(tmp_path / "cut"), stop_after=len(whole[0]) // EPOCHS + 3)
    before = run_ranks(world_size, train, cut)
    after = run_ranks(world_size, train, continued(cut))
    assert [one + other for one, other in zip(before, after)] == whole


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, model: str) -> None:
    """Begun on 2 × 8 and continued on 1 × 16, or the other way, a run has the same rows at each step."""
    wide = Run(str(tmp_path / "wide"), model, rows=(ROWS,), epochs=EPOCHS, sampler="no_duplicates_planned")
    wide = replace(wide, arguments={"plan_across_devices": True})
    narrow = replace(wide, batch_size=16, folder=str(tmp_path / "narrow"))
    (whole,) = run_ranks(1, train, narrow)
    cut = len(whole) // EPOCHS + 2

    begun_wide = replace(wide, stop_after=cut)
    before = [joined(step) for step in zip(*run_ranks(2, train, begun_wide))]
    (after,) = run_ranks(1, train, replace(continued(begun_wide), batch_size=16))
    assert before + after == whole

    begun_narrow = replace(narrow, folder=str(tmp_path / "narrow, cut"), stop_after=cut)
    (before,) = run_ranks(1, train, begun_narrow)
    after = [joined(step) for step in zip(*run_ranks(2, train, replace(continued(begun_narrow), batch_size=8)))]
    assert before + after == whole


@pytest.mark.parametrize("gathers", [True, False], ids=["gathering loss", "other loss"])
def test_batches_are_planned_across_devices_where_the_loss_gathers(gathers: bool, tmp_path: Path, model: str) -> None:
    """By default, a loss that gathers sees no false negative in a global batch; one that does not may."""
    trainer = runs.gathering_trainer if gathers else None
    world_size, run = launched("ddp", tmp_path, model, None, rows=(1024,), batch_size=64, trainer=trainer)
    ranks = run_ranks(world_size, train, run)
    steps = [step for epoch in range(EPOCHS) for step in steps_of(ranks, epoch)]
    assert all(len({len(batch) for batch in step}) == 1 for step in steps) or not gathers
    assert not any(values_twice(batch) for step in steps for batch in step)
    assert any(values_twice(joined(step)) for step in steps) != gathers


@pytest.mark.parametrize("drop_last", [True, False])
def test_drop_last_is_the_users_choice(drop_last: bool, tmp_path: Path, model: str) -> None:
    """Under DDP, with ``dataloader_drop_last`` each batch is full and other rows are left out in each epoch."""
    _, run = launched("ddp", tmp_path, model, True, arguments={"dataloader_drop_last": drop_last})
    ranks = run_ranks(2, train, run)
    used = [{row for step in steps_of(ranks, epoch) for batch in step for row in batch} for epoch in range(EPOCHS)]
    assert [len(rows) for rows in used] == [ROWS // 16 * 16 if drop_last else ROWS] * EPOCHS
    assert (used[0] != used[1]) == drop_last


@pytest.mark.parametrize("rows", [33, 34, 35])
@pytest.mark.parametrize("across", [True, False], ids=["across devices", "each device"])
def test_a_last_step_of_few_rows_leaves_no_rank_idle(rows: int, across: bool, tmp_path: Path, model: str) -> None:
    """With one row too many for whole steps, the ranks still have a row each, and all rows are used."""
    world_size, run = launched("ddp-3", tmp_path, model, across, rows=(rows,), batch_size=4)
    ranks = run_ranks(world_size, train, run)
    for epoch in range(EPOCHS):
        steps = steps_of(ranks, epoch)
        assert len(steps) == 3
        assert all(batch for step in steps for batch in step)
        assert sorted(row for step in steps for batch in step for row in batch) == list(range(rows))
        assert not (across and any(values_twice(joined(step)) for step in steps))


@pytest.mark.parametrize("multi", ["proportional", "round_robin"])
@pytest.mark.parametrize("launch", ["single", "ddp"])
@pytest.mark.parametrize("across", [True, False], ids=["across devices", "each device"])
def test_several_datasets_have_exact_lengths(
    launch: str, multi: str, across: bool, tmp_path: Path, model: str
) -> None:
    """Proportional sampling uses each row of each dataset once; round robin takes as many batches of each."""
    sizes = (53, 70, 37)
    world_size, run = launched(launch, tmp_path, model, across, rows=sizes, multi=multi)
    ranks = run_ranks(world_size, train, run)
    for epoch in range(EPOCHS):
        seen = [row for step in steps_of(ranks, epoch) for batch in step for row in batch]
        assert len(seen) == len(set(seen))
        if multi == "proportional":
            assert sorted(seen) == list(range(sum(sizes)))


@pytest.mark.parametrize(("launch", "batch_size"), [("split", 6), ("split", 2), ("ddp-3", 6)])
def test_any_size_that_the_processes_divide_can_be_split(
    launch: str, batch_size: int, tmp_path: Path, model: str
) -> None:
    """Also one whose part for a process the processes do not divide again."""
    world_size, run = launched(launch, tmp_path, model, True, batch_size=batch_size, epochs=1)
    run = replace(run, accelerator={"split_batches": True})
    steps = steps_of(run_ranks(world_size, train, run), 0, epochs=1)
    assert all(len(joined(step)) == batch_size for step in steps[:-1])
    assert len(joined(joined(steps))) in (ROWS, ROWS - 1)  # with one row a process, an odd row has no company


def test_the_class_is_as_good_as_its_name(tmp_path: Path, model: str) -> None:
    """Passed as a class, the sampler is shared out, and the user's ``drop_last`` counts, as with the string."""
    _, run = launched("ddp", tmp_path, model, True, epochs=1, sampler=PlannedNoDuplicatesBatchSampler)
    steps = steps_of(run_ranks(2, train, run), 0, epochs=1)
    assert sorted(joined(joined(steps))) == list(range(ROWS))


def test_a_trainer_with_a_loader_of_its_own_does_not_hang(tmp_path: Path, model: str) -> None:
    """Overridden with upstream's code, ``get_train_dataloader`` gives upstream's loader: no rank waits."""
    _, run = launched("ddp", tmp_path, model, True, trainer=runs.own_loader_trainer)
    ranks = run_ranks(2, train, run)
    assert all(len(joined(steps_of(ranks, epoch)[0])) == 16 for epoch in range(EPOCHS))


def test_training_evaluates_on_planned_batches(tmp_path: Path, model: str) -> None:
    """An evaluation set is read with the same sampler, on two processes, and the run goes on after it."""
    _, run = launched("ddp", tmp_path, model, True, trainer=runs.evaluating_trainer)
    whole = steps_of(run_ranks(2, train, run), 0)
    assert sorted(joined(joined(whole))) == list(range(ROWS))


def test_a_split_that_is_not_even_is_refused(tmp_path: Path, model: str) -> None:
    """Three processes cannot share batches of 8 rows; the message says so and what to do."""
    accelerator = {"split_batches": True}
    run = Run(str(tmp_path), model, rows=(ROWS,), sampler="no_duplicates_planned", accelerator=accelerator)
    said = r"3 processes cannot share batches of 8 rows equally\. Set per_device_train_batch_size"
    with pytest.raises(RankFailed, match=said):
        run_ranks(3, train, run)


@pytest.mark.parametrize("across", [True, False], ids=["across devices", "each device"])
def test_fewer_rows_than_processes_are_refused(across: bool, tmp_path: Path, model: str) -> None:
    """Two rows are too few for three processes."""
    _, run = launched("ddp-3", tmp_path, model, across, rows=(2,))
    with pytest.raises(RankFailed, match="2 rows without duplicates cannot be shared by 3 processes"):
        run_ranks(3, train, run)
