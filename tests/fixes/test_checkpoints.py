"""Checkpoints that are incomplete, since a process was killed while one was saved: a resume passes over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kills import MODES, SAVE_STEPS, differs, resumed, run_of
from launch.hosts import Hosts, NoHosts, on_host, two_hosts
from selection import few_of

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, Steps, train

pytestmark = pytest.mark.slow
DEFECT = pytest.mark.defect


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Callable[[str], list[Steps]]:
    """The rows of each rank, of an uninterrupted run; made once for each launch mode."""

    @cache
    def make(mode: str) -> list[Steps]:
        return run_ranks(2, train, run_of(tmp_path_factory.mktemp("whole"), model, mode))

    return make


@pytest.mark.parametrize("seed", few_of([1, 2], [2]))
@pytest.mark.parametrize("mode", few_of(MODES, ["ddp"]))
def test_run_killed_at_any_moment_goes_on_with_the_same_command(
    mode: str, seed: int, whole: Callable[[str], list[Steps]], model: str
) -> None:
    """From the newest complete checkpoint, with the rows of the uninterrupted run; ``kills.py`` tries more seeds."""
    assert differs(mode, model, whole(mode), seed) == ""


@pytest.fixture(scope="module")
def pair() -> Iterator[Hosts]:
    """Two hosts; where none can be made, the tests are skipped, but on CI as root, where they must run."""
    try:
        with two_hosts() as made:
            yield made
    except NoHosts as reason:
        if os.environ.get("CI") and os.geteuid() == 0:
            raise
        pytest.skip(str(reason))


@pytest.mark.wide
@pytest.mark.parametrize("mode", MODES)
def test_run_on_two_hosts_goes_on_after_one_was_killed(
    mode: str, pair: Hosts, whole: Callable[[str], list[Steps]], model: str
) -> None:
    """A rank on each, and a folder that they share."""

    def launch(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        return run_ranks(world_size, on_host, pair, 1, function, *args)

    assert differs(mode, model, whole(mode), seed=3, launch=launch) == ""


def saved(folder: Path, model: str, mode: str = "ddp") -> Run:
    """A run that was ended after its third checkpoint, at step 9."""
    run = run_of(folder, model, mode, save_total_limit=None)
    run_ranks(2, train, replace(run, stop_after=None, arguments={**run.arguments, "max_steps": 9}))
    return replace(run, arguments={**run.arguments, "max_steps": 12})


def cut_off(file: Path) -> None:
    """Leave half of it."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no state": lambda folder: (folder / "trainer_state.json").unlink(),
    "half of the state": lambda folder: cut_off(folder / "trainer_state.json"),
    "half of the model": lambda folder: cut_off(folder / "model.safetensors"),
    "half of the random states of rank 1": lambda folder: cut_off(folder / "rng_state_1.pth"),
}


@DEFECT
@pytest.mark.parametrize("damage", few_of(DAMAGES, ["half of the state", "half of the random states of rank 1"]))
def test_incomplete_checkpoint_is_passed_over_on_every_rank(
    damage: str, whole: Callable[[str], list[Steps]], tmp_path: Path, model: str
) -> None:
    """The run goes on from the one before, whichever rank would have failed."""
    run = saved(tmp_path, model)
    DAMAGES[damage](tmp_path / "checkpoint-9")
    assert resumed(run) == [steps[2 * SAVE_STEPS :] for steps in whole("ddp")]


def error_of(run: Run) -> str:
    """What a rank ends with."""
    try:
        train(run)
    except ValueError as error:
        return str(error)
    return ""


@DEFECT
@pytest.mark.parametrize("damage", few_of(["no state", "half of the random states of rank 1"], ["no state"]))
def test_path_of_an_incomplete_checkpoint_is_one_error_on_every_rank(damage: str, tmp_path: Path, model: str) -> None:
    """It names the checkpoint, and what it lacks."""
    checkpoint = tmp_path / "checkpoint-9"
    run = saved(tmp_path, model)
    DAMAGES[damage](checkpoint)
    try:
        errors = run_ranks(2, error_of, replace(run, resume=str(checkpoint)))
    except RankFailed as failure:
        errors = [str(failure)]
    assert len(errors) == 2 and len(set(errors)) == 1
    assert f"{checkpoint} is incomplete" in errors[0]


def in_own_folder(run: Run) -> Steps | str:
    """Train in a folder of this rank's own."""
    return train(replace(run, folder=f"{run.folder}-{os.environ['RANK']}"))


@DEFECT
@pytest.mark.wide
def test_hosts_with_folders_of_their_own_resume_from_the_same_checkpoint(tmp_path: Path, model: str) -> None:
    """Where one of them lacks the newest, all take the newest that each has."""
    run = run_of(tmp_path / "out", model, "ddp", save_total_limit=None, save_on_each_node=True, max_steps=12)
    expected = run_ranks(2, in_own_folder, run)
    for rank in (0, 1):  # both ranks are of one node here, so that one has saved for both
        folder = Path(f"{run.folder}-{rank}")
        for step in (3, 6, 9, 12):
            (folder / f"checkpoint-{step}").mkdir(parents=True, exist_ok=True)
            for source in Path(f"{run.folder}-0", f"checkpoint-{step}").rglob("*"):
                target = folder / source.relative_to(f"{run.folder}-0")
                if source.is_dir():
                    target.mkdir(exist_ok=True)
                elif not target.exists():
                    target.write_bytes(source.read_bytes())
    (Path(f"{run.folder}-1") / "checkpoint-12" / "trainer_state.json").unlink()
    (Path(f"{run.folder}-1") / "checkpoint-9" / "trainer_state.json").unlink()
    try:
        after: Any = run_ranks(2, in_own_folder, replace(run, resume=True))
    except RankFailed as failure:
        after = str(failure)
    assert after == [steps[6:] for steps in expected]


def writers_of(run: Run) -> list[str]:
    """The names of the folders to which this rank writes its model."""
    written: list[str] = []

    def build(*arguments: Any) -> Any:
        trainer = runs.sentence_transformer_trainer(*arguments)
        save = trainer.model.save_pretrained

        def recorded(path: str, *args: Any, **kwargs: Any) -> None:
            written.append(Path(path).name)
            save(path, *args, **kwargs)

        trainer.model.save_pretrained = recorded
        return trainer

    train(replace(run, trainer=build))
    return written


@DEFECT
def test_one_rank_writes_the_model(tmp_path: Path, model: str) -> None:
    """What another one writes may end after the state, which says that a checkpoint is complete."""
    names = [f"checkpoint-{step}" for step in (3, 6, 9, 12)]
    assert run_ranks(2, writers_of, run_of(tmp_path, model, "ddp")) == [names, []]
