"""A toy checkout, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_queue import make_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy checkout, with its unpacked tree; to be copied, not changed."""
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def checkout(toy: Path, tmp_path: Path) -> Path:
    """A toy checkout of the test's own."""
    return Path(shutil.copytree(toy, tmp_path / "checkout"))
