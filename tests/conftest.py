"""Settings of all tests, and the run against the pristine release (``--pristine``)."""

from __future__ import annotations

import importlib.metadata
import os
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
