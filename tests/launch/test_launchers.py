"""The launchers that users type, with the real model: their orders are those of the forked ranks, resumed or not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from conformance.launch import run_ranks
from conformance.runs import MINILM, Run, Steps, continued, train

SCRIPT = """
import json, os, sys
from conformance import runs
runs.train(runs.Run(**json.loads(sys.argv[1])))
os._exit(0)  # as forked ranks end, too: PyTorch's threads abort one in some processes that tear down around them
"""
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate launch": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
    ],
}


def launch(launcher: str, run: Run, script: Path) -> None:
    """Start the run as a user would; the ranks note their rows in the run's folder."""
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", *LAUNCHERS[launcher], str(script), json.dumps(asdict(run))]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def recorded(folder: str) -> list[Steps]:
    """The rows of each rank, over all runs in a folder."""
    files = sorted(Path(folder).glob("rows-*.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.mark.wide
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate launch"])
def test_launched_ranks_see_the_rows_of_forked_ones(launcher: str, tmp_path: Path, monkeypatch: Any) -> None:
    """MiniLM on two processes, interrupted in epoch 1 and resumed, sees what an uninterrupted forked run sees."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    run = Run(str(tmp_path / "launched"), str(MINILM), rows=(64,), epochs=2, stop_after=6, gradients=True)
    launch(launcher, run, tmp_path / "script.py")
    launch(launcher, continued(run), tmp_path / "script.py")
    whole = run_ranks(2, train, replace(run, folder=str(tmp_path / "forked"), stop_after=None, gradients=False))
    assert recorded(run.folder) == whole
