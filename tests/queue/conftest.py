"""A toy checkout, and the trees of the real series, each made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from toy_queue import ROOT, make_toy

from patchqueue.scratch import lay_out
from patchqueue.series import Line
from patchqueue.tree import start_tree


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy checkout, with its unpacked tree; to be copied, not changed."""
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def checkout(toy: Path, tmp_path: Path) -> Path:
    """A toy checkout of the test's own."""
    return Path(shutil.copytree(toy, tmp_path / "checkout"))


@pytest.fixture(scope="session")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """A tree with a branch for each fix of a series, made once for each."""

    @cache
    def make(series: Path) -> Path:
        line, tree = Line.find(str(series), ROOT), tmp_path_factory.mktemp("branches") / "tree"
        start_tree(line, tree)
        assert lay_out(line, tree) == []
        return tree

    return make
