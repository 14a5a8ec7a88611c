"""Settings of all tests, and the run against the pristine release (``--pristine``)."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--pristine``: the release is under test, and every test of a defect must fail on it."""
    parser.addoption("--pristine", action="store_true", help="every test of a defect must fail: no fork is installed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--pristine``, only tests of defects run, and one that passes is a failure."""
    forked = "+epoch" in importlib.metadata.version("sentence-transformers")
    if not config.getoption("pristine"):
        if not forked:
            raise pytest.UsageError("the fork is not installed; run `make setup`, or test the release with --pristine")
        return
    if forked:
        raise pytest.UsageError("--pristine tests the release, but the fork is installed; use `make test-pristine`")
    defects = [item for item in items if item.get_closest_marker("defect")]
    config.hook.pytest_deselected(items=[item for item in items if item not in defects])
    items[:] = defects
    for item in items:
        item.add_marker(pytest.mark.xfail(strict=True, raises=AssertionError))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the small model that all runs train."""
    from conformance.runs import small_model

    folder: Path = tmp_path_factory.mktemp("model")
    return small_model(folder)


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory, model: str) -> Callable[[str], list[str]]:
    """The fingerprints of a whole run, which all of its processes log; made once for each launch mode."""
    from guarded import LAUNCHES, attempt, run_of

    from conformance.launch import run_ranks

    @cache
    def make(launch: str) -> list[str]:
        world_size, changes = LAUNCHES[launch]
        outcomes = run_ranks(world_size, attempt, run_of(tmp_path_factory.mktemp("whole"), model, **changes))
        assert [(outcome.messages, outcome.error) for outcome in outcomes] == [([], "")] * world_size
        (logged,) = {tuple(outcome.orders) for outcome in outcomes}
        return list(logged)

    return make


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A release of accelerate or transformers, with its series applied."""
    from patchqueue.series import Line, build_tree

    @cache
    def make(name: str) -> Path:
        return build_tree(Line.find(name, Path(__file__).parents[1]), tmp_path_factory.mktemp("roots") / "tree")

    return make


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy checkout, with its unpacked tree; to be copied, not changed."""
    from toy_queue import make_toy, queue

    folder = make_toy(tmp_path_factory.mktemp("toy"))
    queue(folder, "unpack")
    return folder


@pytest.fixture
def checkout(toy: Path, tmp_path: Path) -> Path:
    """A toy checkout of the test's own."""
    return Path(shutil.copytree(toy, tmp_path / "checkout"))
