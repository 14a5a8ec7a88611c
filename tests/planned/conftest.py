"""Fixtures of the planned batches' tests, which run on the fork and, with the package linked in, on the release."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the small model that all runs train."""
    from conformance.runs import small_model

    folder: Path = tmp_path_factory.mktemp("model")
    return small_model(folder)
