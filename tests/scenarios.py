"""What every line of the fork promises, in a dozen small runs; for older releases, and for the newest published ones.

``make test-lines`` runs them in the environment of each line, where all must pass, and on its pristine release, where
those that ``WRONG`` names must fail. ``make outlook`` runs them on the newest published packages.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import sentence_transformers
from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, Steps, continued, train

VERSION = sentence_transformers.__version__
ROWS, BATCH_SIZE, EPOCHS = 100, 8, 3
LAUNCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {}),
    "ddp": (2, {}),
    "split": (2, {"split_batches": True}),
    "dispatch": (2, {"dispatch_batches": True}),
}
EPOCHS_REPEAT = {f"{what} {launch}" for what in ("new epoch", "resume") for launch in ("ddp", "split", "dispatch")}
OWN_ORDERS = {"own orders proportional", "own orders round_robin"}
DEFAULT_RESUMES = {"default sampler, resume single", "default sampler, resume ddp"}
TRAINERS_RESUME = {"resume ddp, cross-encoder", "resume ddp, sparse", "resume ddp, multi-vector"}
SEEDS = {"data_seed", "default sampler, ranks agree"}
WRONG = {
    "3.3.1": EPOCHS_REPEAT | OWN_ORDERS | DEFAULT_RESUMES | {"new epoch single", "resume single"},
    "5.7.0": EPOCHS_REPEAT | OWN_ORDERS | DEFAULT_RESUMES | TRAINERS_RESUME | SEEDS,
    "6.2.0": EPOCHS_REPEAT - {"new epoch ddp", "new epoch split"} | OWN_ORDERS | TRAINERS_RESUME | SEEDS,
}
"""The scenarios that fail on a release as published, in the environment of its line."""


def scenario(name: str, *values: Any) -> Any:
    """A parameter set called `name`, marked as a defect where the release of the line has it."""
    return pytest.param(*values, id=name, marks=pytest.mark.defect if name in WRONG.get(VERSION, ()) else ())


def launched(launch: str, folder: Path, model: str, **changes: Any) -> tuple[int, Run]:
    """The number of processes of a launch mode, and the run that each of them makes."""
    world_size, accelerator = LAUNCHES[launch]
    run = Run(str(folder), model, rows=(ROWS,), batch_size=BATCH_SIZE, epochs=EPOCHS, accelerator=accelerator)
    return world_size, replace(run, **changes)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Any:
    """The rows of each rank at each step, of an uninterrupted run; made once for each launch mode and sampler."""

    @cache
    def make(launch: str, sampler: str = "no_duplicates") -> list[Steps]:
        world_size, run = launched(launch, tmp_path_factory.mktemp("whole"), model, sampler=sampler)
        return run_ranks(world_size, train, run)

    return make


def epochs_of(steps: Steps) -> list[Steps]:
    """The steps of a whole run, by epoch."""
    length = len(steps) // EPOCHS
    return [steps[start : start + length] for start in range(0, len(steps), length)]


def assert_goes_on(world_size: int, run: Run, expected: list[Steps]) -> None:
    """Stopped in epoch 1 and resumed, a run goes on in that epoch's order, which is not epoch 0's."""
    before = run_ranks(world_size, train, run)
    after = run_ranks(world_size, train, continued(run))
    assert [one + other for one, other in zip(before, after)] == expected
    assert all(first != second for first, second, _ in map(epochs_of, expected))


@pytest.mark.parametrize("launch", [scenario(f"new epoch {launch}", launch) for launch in LAUNCHES])
def test_every_epoch_is_a_new_epoch(launch: str, whole: Any) -> None:
    """No two epochs of a run have the same batches, nor are they rows 0 to 7, 8 to 15 and so on."""
    for steps in whole(launch):
        epochs = epochs_of(steps)
        assert len(epochs) == EPOCHS
        assert all(one != other for i, one in enumerate(epochs) for other in epochs[:i])
        assert all(epoch != sorted(epoch) for epoch in epochs)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_no_row_is_seen_twice_in_an_epoch(launch: str, whole: Any) -> None:
    """All ranks together see each row of an epoch once."""
    for ranks in zip(*(epochs_of(steps) for steps in whole(launch))):
        rows = [row for steps in ranks for batch in steps for row in batch]
        assert len(rows) == len(set(rows)) > ROWS * 0.8


@pytest.mark.parametrize("launch", [scenario(f"resume {launch}", launch) for launch in LAUNCHES])
def test_resumed_run_continues_the_interrupted_order(launch: str, whole: Any, tmp_path: Path, model: str) -> None:
    """Cut in the middle of epoch 1, the rows before and after are, step by step, those of the uninterrupted run."""
    steps_in_epoch = len(whole(launch)[0]) // EPOCHS
    world_size, run = launched(launch, tmp_path, model, stop_after=steps_in_epoch + 2)
    assert_goes_on(world_size, run, whole(launch))


@pytest.mark.parametrize("launch", [scenario(f"default sampler, resume {name}", name) for name in ("single", "ddp")])
def test_resumed_run_with_the_default_sampler(launch: str, whole: Any, tmp_path: Path, model: str) -> None:
    """As with `no_duplicates`."""
    expected = whole(launch, "batch_sampler")
    stop = len(expected[0]) // EPOCHS + 2
    world_size, run = launched(launch, tmp_path, model, sampler="batch_sampler", stop_after=stop)
    assert_goes_on(world_size, run, expected)


TRAINERS = {"cross-encoder": "CrossEncoder", "sparse": "SparseEncoder", "multi-vector": "MultiVectorEncoder"}


@pytest.mark.parametrize("kind", [scenario(f"resume ddp, {kind}", kind) for kind in TRAINERS])
def test_every_trainer_resumes_exactly(kind: str, whole: Any, tmp_path: Path, model: str) -> None:
    """Each trainer takes the rows that the SentenceTransformerTrainer takes, resumed in epoch 1 under DDP."""
    if not hasattr(runs, f"{TRAINERS[kind]}Trainer"):
        pytest.skip(f"{VERSION} has no {TRAINERS[kind]}Trainer")
    trainer = getattr(runs, f"{kind.replace('-', '_')}{'_encoder' * (kind != 'cross-encoder')}_trainer")
    world_size, run = launched("ddp", tmp_path, model, trainer=trainer, stop_after=8)
    assert_goes_on(world_size, run, whole("ddp"))


@pytest.mark.parametrize(
    "multi", [scenario(f"own orders {multi}", multi) for multi in ("proportional", "round_robin")]
)
def test_datasets_of_equal_length_have_orders_of_their_own(multi: str, tmp_path: Path, model: str) -> None:
    """No two datasets of a run are drawn in the same permutation, and a resumed run goes on in them."""
    _, run = launched("single", tmp_path, model, rows=(48, 48, 48), multi=multi)
    (steps,) = run_ranks(1, train, run)
    rows = [row for batch in epochs_of(steps)[0] for row in batch]
    orders = [[row - first for row in rows if first <= row < first + 48] for first in (0, 48, 96)]
    assert len(set(map(tuple, orders))) == 3
    assert_goes_on(1, replace(run, folder=str(tmp_path / "cut"), stop_after=20), [steps])


@pytest.mark.skipif(VERSION == "3.3.1", reason="left as it was in this line")
@pytest.mark.parametrize("sampler", [scenario("data_seed", "no_duplicates")])
def test_data_seed_decides_the_order(sampler: str, tmp_path: Path, model: str) -> None:
    """``data_seed`` changes the order of ``no_duplicates``, and with it alone ``seed`` does not."""
    orders = []
    for seed, data_seed in ((1, 5), (2, 5), (1, 6)):
        arguments = {"seed": seed, "data_seed": data_seed}
        _, run = launched("single", tmp_path, model, epochs=1, sampler=sampler, arguments=arguments)
        orders.append(run_ranks(1, train, run))
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("sampler", [scenario("default sampler, ranks agree", "batch_sampler")])
def test_ranks_agree_whatever_their_global_generators(sampler: str, tmp_path: Path, model: str) -> None:
    """With the default sampler and another global seed on each rank, an epoch still has each row once."""
    world_size, run = launched("ddp", tmp_path, model, rows=(96,), sampler=sampler, reseed=True)
    ranks = [epochs_of(steps) for steps in run_ranks(world_size, train, run)]
    for epoch in range(EPOCHS):
        assert sorted(row for rank in ranks for batch in rank[epoch] for row in batch) == list(range(96))
