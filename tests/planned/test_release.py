"""The planned sampler on the unpatched release, which knows nothing of it: one process and DDP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRISTINE = ROOT / "build" / "pristine" / "sentence_transformers"
RUNS = [
    "test_every_row_once_in_equal_steps_without_duplicates[single-True]",
    "test_every_row_once_in_equal_steps_without_duplicates[ddp-True]",
    "test_a_resumed_run_continues_the_plan[ddp]",
    "test_training_evaluates_on_planned_batches",
    "test_several_datasets_on_one_process_use_each_row_once",
]


@pytest.mark.wide
@pytest.mark.skipif(not PRISTINE.exists(), reason="the release is not unpacked; run `make setup`")
def test_the_release_trains_on_planned_batches() -> None:
    """The runs of the fork, with the package beside the release's own modules, where set-up has put it."""
    runs = [f"{Path(__file__).parent / 'test_planned_runs.py'}::{name}" for name in RUNS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--confcutdir={Path(__file__).parent}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PRISTINE.parent), str(ROOT)])}
    done = subprocess.run([*command, *runs], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "5 passed" in done.stdout
