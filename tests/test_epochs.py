"""What a user is promised of the order of batches, on real trainers with 1, 2 and 3 processes, in each launch mode.

Tests marked ``defect`` fail on the pristine release (``make test-pristine`` shows it).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, Steps, continued, train

ROWS, BATCH_SIZE, EPOCHS = 100, 8, 3
LAUNCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {}),
    "ddp": (2, {}),
    "ddp on 3": (3, {}),
    "split": (2, {"split_batches": True}),
    "dispatch": (2, {"dispatch_batches": True}),
    "dispatch on 3": (3, {"dispatch_batches": True}),
    "dispatch, split": (2, {"dispatch_batches": True, "split_batches": True}),
}
DEFECT = pytest.mark.defect


def launched(launch: str, folder: Path, model: str, **changes: Any) -> tuple[int, Run]:
    """The number of processes of a launch mode, and the run that each of them makes."""
    world_size, accelerator = LAUNCHES[launch]
    run = Run(str(folder), model, rows=(ROWS,), batch_size=BATCH_SIZE, epochs=EPOCHS, accelerator=accelerator)
    return world_size, replace(run, **changes)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Any:
    """The rows of each rank at each step, of an uninterrupted run; made once for each launch mode."""

    @cache
    def make(launch: str) -> list[Steps]:
        world_size, run = launched(launch, tmp_path_factory.mktemp("whole"), model)
        return run_ranks(world_size, train, run)

    return make


def epochs_of(steps: Steps) -> list[Steps]:
    """The steps of a whole run, by epoch."""
    length = len(steps) // EPOCHS
    return [steps[start : start + length] for start in range(0, len(steps), length)]


def planned(epoch: int, drop_last: bool) -> Steps:
    """The batches of an epoch, straight from the batch sampler."""
    import torch

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


@pytest.mark.parametrize(
    "launch", [pytest.param(name, marks=DEFECT if name.startswith("dispatch") else ()) for name in LAUNCHES]
)
def test_every_epoch_is_a_new_epoch(launch: str, whole: Any) -> None:
    """No two epochs of a run have the same batches, on any rank."""
    for steps in whole(launch):
        epochs = epochs_of(steps)
        assert len(epochs) == EPOCHS
        assert all(one != other for i, one in enumerate(epochs) for other in epochs[:i])


@pytest.mark.parametrize(
    "launch", [pytest.param(name, marks=DEFECT if name.startswith("dispatch") else ()) for name in LAUNCHES]
)
def test_ranks_share_out_the_plan_of_the_epoch(launch: str, whole: Any) -> None:
    """At each step the ranks take the next batches of one plan, the upstream sampler's for (seed, epoch)."""
    world_size, accelerator = LAUNCHES[launch]
    ranks = [epochs_of(steps) for steps in whole(launch)]
    for epoch in range(EPOCHS):
        plan = planned(epoch, drop_last=world_size > 1)
        if not accelerator.get("split_batches"):
            plan = plan[: len(plan) // world_size * world_size]
            assert [rank[epoch] for rank in ranks] == [plan[rank::world_size] for rank in range(world_size)]
        else:
            half = BATCH_SIZE // world_size
            assert [rank[epoch] for rank in ranks] == [[b[:half] for b in plan], [b[half:] for b in plan]]


CUTS = {"epoch 0": 2, "epoch 1": 2, "the end of epoch 0": 0, "epoch 2": 3}


def cut_step(cut: str, steps_in_epoch: int) -> int:
    """The optimizer step after which a run is cut."""
    if cut == "the end of epoch 0":
        return steps_in_epoch
    return int(cut[-1]) * steps_in_epoch + CUTS[cut]


def wrong_as_released(launch: str, cut: str) -> bool:
    """Whether the release resumes a run, launched and cut so, in another order than it was begun in."""
    if launch == "dispatch, split":  # every epoch has epoch 0's order, and skips are counted in steps
        return cut != "epoch 0"
    return launch.startswith("dispatch") or (launch != "single" and cut in ("epoch 1", "epoch 2"))


def resumes() -> list[Any]:
    """Launch modes by cuts."""
    return [
        pytest.param(launch, cut, marks=DEFECT if wrong_as_released(launch, cut) else ())
        for launch in LAUNCHES
        for cut in CUTS
        if not (launch.startswith("dispatch") and cut == "the end of epoch 0")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("launch", "cut"), resumes())
def test_resumed_run_continues_the_interrupted_order(
    launch: str, cut: str, whole: Any, tmp_path: Path, model: str
) -> None:
    """The rows before the cut and after the resume are, step by step, those of the uninterrupted run."""
    step = cut_step(cut, len(whole(launch)[0]) // EPOCHS)
    world_size, run = launched(launch, tmp_path, model, stop_after=step)
    before = run_ranks(world_size, train, run)
    after = run_ranks(world_size, train, continued(run))
    assert [len(steps) for steps in before] == [step] * world_size
    assert [one + other for one, other in zip(before, after)] == whole(launch)


@pytest.mark.parametrize("launch", ["single", *(pytest.param(name, marks=DEFECT) for name in ("ddp", "split"))])
def test_run_killed_between_checkpoints_continues_from_the_last(
    launch: str, whole: Any, tmp_path: Path, model: str
) -> None:
    """After SIGKILL, the run goes on from the last checkpoint as if it had been the end of the run before."""
    killed = 1 + len(whole(launch)[0]) // EPOCHS // 2 * 2 + 2
    world_size, run = launched(launch, tmp_path, model, kill_after=killed)
    run_ranks(world_size, train, run, exitcode=-9)
    after = run_ranks(world_size, train, continued(run))
    assert after == [steps[killed - 1 :] for steps in whole(launch)]


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
@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=() if name == "default sampler" else DEFECT) for name in VARIANTS]
)
def test_resume_is_exact_with(variant: str, tmp_path: Path, model: str) -> None:
    """Under DDP, cut in the middle of epoch 1, with other settings around the loader."""
    world_size, run = launched("ddp", tmp_path / "whole", model, **VARIANTS[variant])
    uninterrupted = run_ranks(world_size, train, run)
    cut = 9 if variant != "gradient accumulation" else 4
    interrupted = replace(run, folder=str(tmp_path / "cut"), stop_after=cut)
    before = run_ranks(world_size, train, interrupted)
    after = run_ranks(world_size, train, continued(interrupted))
    assert [one + other for one, other in zip(before, after)] == uninterrupted
    assert all(len(steps) > len(cut_off) > 0 for steps, cut_off in zip(uninterrupted, before))


@pytest.mark.slow
@pytest.mark.defect
@pytest.mark.parametrize(
    "trainer",
    [runs.cross_encoder_trainer, runs.sparse_encoder_trainer, runs.multi_vector_encoder_trainer],
    ids=["cross-encoder", "sparse", "multi-vector"],
)
def test_every_trainer_resumes_exactly(trainer: Any, whole: Any, tmp_path: Path, model: str) -> None:
    """Each trainer takes the rows that the SentenceTransformerTrainer takes, resumed in epoch 1 under DDP."""
    world_size, run = launched("ddp", tmp_path, model, trainer=trainer, stop_after=8)
    before = run_ranks(world_size, train, run)
    after = run_ranks(world_size, train, continued(run))
    assert [one + other for one, other in zip(before, after)] == whole("ddp")


@pytest.mark.parametrize("launch", ["single", "ddp", "dispatch"])
def test_a_second_train_begins_with_epoch_0(launch: str, whole: Any, tmp_path: Path, model: str) -> None:
    """``train()`` called twice makes the same run twice."""
    world_size, run = launched(launch, tmp_path, model, calls=2)
    assert run_ranks(world_size, train, run) == whole(launch)


@pytest.mark.defect
def test_ranks_agree_whatever_their_global_generators(tmp_path: Path, model: str) -> None:
    """With the default sampler and another global seed on each rank, an epoch still has each row once."""
    world_size, run = launched("ddp", tmp_path, model, rows=(96,), sampler="batch_sampler", reseed=True)
    ranks = [epochs_of(steps) for steps in run_ranks(world_size, train, run)]
    for epoch in range(EPOCHS):
        assert sorted(row for rank in ranks for batch in rank[epoch] for row in batch) == list(range(96))


@pytest.mark.defect
@pytest.mark.parametrize("multi", ["proportional", "round_robin"])
def test_datasets_of_equal_length_have_orders_of_their_own(multi: str, tmp_path: Path, model: str) -> None:
    """No two datasets of a run are drawn in the same permutation, the first one in that of a run on it alone."""
    _, run = launched("single", tmp_path, model, rows=(48, 48, 48), multi=multi, epochs=1)
    (steps,) = run_ranks(1, train, run)
    rows = [row for batch in steps for row in batch]
    orders = [[row - first for row in rows if first <= row < first + 48] for first in (0, 48, 96)]
    assert len(set(map(tuple, orders))) == 3
    (alone,) = run_ranks(1, train, replace(run, rows=(48,)))
    assert orders[0] == [row for batch in alone for row in batch]


@pytest.mark.defect
def test_data_seed_decides_the_order(tmp_path: Path, model: str) -> None:
    """``data_seed`` changes the order of ``no_duplicates``, and with it alone ``seed`` does not."""
    orders = []
    for seed, data_seed in ((1, 5), (2, 5), (1, 6)):
        _, run = launched("single", tmp_path, model, epochs=1, arguments={"seed": seed, "data_seed": data_seed})
        orders.append(run_ranks(1, train, run))
    assert orders[0] == orders[1] != orders[2]
