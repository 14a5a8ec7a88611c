"""What a user is promised of the order of batches beyond the matrix: to the letter, and with other settings around it.

Tests marked ``defect`` fail on the pristine release (``make test-pristine`` shows it).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from selection import few_of
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from conformance import runs
from conformance.launch import run_ranks
from conformance.observe import observe
from conformance.properties import Ranks
from conformance.runs import Steps, continued, train
from conformance.scenarios import BATCH_SIZE, BY_NAME, EPOCHS, ROWS

DEFECT = pytest.mark.defect
FEW = ("ddp", "split", "dispatch")
LAUNCHES = ["single", "ddp", "ddp-3", "split", "dispatch", "dispatch-3", "dispatch-split"]


def launches(names: Iterable[str], defects: Collection[str] = ()) -> list[Any]:
    """Launch modes as parameters; the tests of one share its uninterrupted run."""
    marks = {
        name: [
            pytest.mark.xdist_group(name),
            *([DEFECT] * (name in defects)),
            *([pytest.mark.wide] * (name not in FEW)),
        ]
        for name in names
    }
    return [pytest.param(name, marks=marks[name]) for name in names]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Any:
    """The records of an uninterrupted run, by rank; made once for each launch mode."""

    @cache
    def make(launch: str) -> Ranks:
        scenario = BY_NAME[launch]
        return run_ranks(scenario.world_size, observe, scenario.run(str(tmp_path_factory.mktemp("whole")), model))

    return make


def planned(epoch: int, drop_last: bool) -> Steps:
    """The batches of an epoch, straight from the batch sampler."""
    sampler = NoDuplicatesBatchSampler(
        runs.names(ROWS),
        batch_size=BATCH_SIZE,
        drop_last=drop_last,
        valid_label_columns=["label"],
        generator=torch.Generator(),
        seed=42,
    )
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("launch", launches(LAUNCHES, [name for name in LAUNCHES if name.startswith("dispatch")]))
def test_ranks_share_out_the_plan_of_the_epoch(launch: str, whole: Any) -> None:
    """At each step the ranks take the next batches of one plan, the upstream sampler's for (seed, epoch)."""
    world_size = BY_NAME[launch].world_size
    ranks = [record.epochs for record in whole(launch)]
    for epoch in range(EPOCHS):
        plan = planned(epoch, drop_last=world_size > 1)
        if launch not in ("split", "dispatch-split"):
            plan = plan[: len(plan) // world_size * world_size]
            assert [rank[epoch] for rank in ranks] == [plan[rank::world_size] for rank in range(world_size)]
        else:
            half = BATCH_SIZE // world_size
            assert [rank[epoch] for rank in ranks] == [[b[:half] for b in plan], [b[half:] for b in plan]]


@pytest.mark.parametrize("launch", launches(["single", "ddp", "split"], ["ddp", "split"]))
def test_run_killed_between_checkpoints_continues_from_the_last(
    launch: str, whole: Any, tmp_path: Path, model: str
) -> None:
    """After SIGKILL, the run goes on from the last checkpoint as if it had been the end of the run before."""
    killed = 1 + whole(launch)[0].starts[1] // 2 * 2 + 2
    run = replace(BY_NAME[launch].run(str(tmp_path), model), kill_after=killed)
    run_ranks(BY_NAME[launch].world_size, train, run, exitcode=-9)
    after = run_ranks(BY_NAME[launch].world_size, train, continued(run))
    assert after == [record.steps[killed - 1 :] for record in whole(launch)]


VARIANTS: dict[str, dict[str, Any]] = {
    "gradient accumulation": {"arguments": {"gradient_accumulation_steps": 2}},
    "workers": {"arguments": {"dataloader_num_workers": 1}},
    "persistent workers": {"arguments": {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}},
    "max_steps": {"arguments": {"max_steps": 14}},
    "default sampler": {"sampler": "batch_sampler"},
    "default sampler, not seedable": {"sampler": "batch_sampler", "accelerator": {"use_seedable_sampler": False}},
    "user-written sampler": {"sampler": runs.user_written},
    "proportional": {"rows": (48, 48), "multi": "proportional"},
    "round robin": {"rows": (48, 48), "multi": "round_robin"},
}
"""Changes to a run under DDP."""


@pytest.mark.slow
@pytest.mark.parametrize("variant", few_of(VARIANTS, ["workers", "proportional"], {*VARIANTS} - {"default sampler"}))
def test_resume_is_exact_with(variant: str, tmp_path: Path, model: str) -> None:
    """Under DDP, cut in the middle of epoch 1, with other settings around the loader."""
    run = replace(BY_NAME["ddp"].run(str(tmp_path / "whole"), model), **VARIANTS[variant])
    uninterrupted = run_ranks(2, train, run)
    cut = 9 if variant != "gradient accumulation" else 4
    interrupted = replace(run, folder=str(tmp_path / "cut"), stop_after=cut)
    before = run_ranks(2, train, interrupted)
    after = run_ranks(2, train, continued(interrupted))
    assert [one + other for one, other in zip(before, after)] == uninterrupted
    assert all(len(steps) > len(cut_off) > 0 for steps, cut_off in zip(uninterrupted, before))


@pytest.mark.parametrize("launch", [*launches(["single", "ddp"]), pytest.param("dispatch", marks=pytest.mark.wide)])
def test_a_second_train_begins_with_epoch_0(launch: str, whole: Any, tmp_path: Path, model: str) -> None:
    """``train()`` called twice makes the same run twice."""
    run = replace(BY_NAME[launch].run(str(tmp_path), model), calls=2)
    assert run_ranks(BY_NAME[launch].world_size, train, run) == [record.steps for record in whole(launch)]


@pytest.mark.defect
@pytest.mark.parametrize("multi", few_of(["proportional", "round_robin"], ["proportional"]))
def test_datasets_of_equal_length_have_orders_of_their_own(multi: str, tmp_path: Path, model: str) -> None:
    """No two datasets of a run are drawn in the same permutation, the first one in that of a run on it alone."""
    run = replace(BY_NAME["single"].run(str(tmp_path), model), rows=(48, 48, 48), multi=multi, epochs=1)
    (steps,) = run_ranks(1, train, run)
    rows = [row for batch in steps for row in batch]
    orders = [[row - first for row in rows if first <= row < first + 48] for first in (0, 48, 96)]
    assert len(set(map(tuple, orders))) == 3
    (alone,) = run_ranks(1, train, replace(run, rows=(48,)))
    assert orders[0] == [row for batch in alone for row in batch]
