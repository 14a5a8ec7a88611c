"""Two hosts, one of which is cut off in mid-epoch: both sides end, and the same command with resume goes on exactly.

The hosts are network namespaces (``hosts.py``). One scenario is launched as users launch it, by a torchrun on each
host; the others are forked ranks, moved to the hosts, in every launch mode.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from launch.hosts import Hosts, NoHosts, on_host, two_hosts
from transformers import TrainerCallback

from conformance import runs, trainers
from conformance.launch import run_ranks
from conformance.runs import Run, Steps, continued, train

pytestmark = [pytest.mark.wide, pytest.mark.xdist_group("nodes")]
DEFECT = pytest.mark.defect

STEPS_IN_EPOCH, CHECKPOINT, CUT = 6, 8, 10  # 2 ranks × 8 of 100 rows, cut after the fourth step of epoch 1
PATIENCE = 3  # seconds that a collective waits for the other host
BOUND = 150  # seconds in which a launch has ended on both hosts, on a busy machine; gloo's default is half an hour
# What gloo says of a host that is gone: by the rank that waits, by a later use of the same pair, by a rank beside it.
LOST = ("Timed out waiting", "timeout caused pair closure", "Connection closed by peer", "Connection reset by peer")

MODES: dict[str, tuple[int, dict[str, Any]]] = {
    "ddp": (1, {}),
    "ddp, 2 ranks a host": (2, {"batch_size": 4}),
    "ddp, a folder a host": (1, {}),
    "split": (1, {"accelerator": {"split_batches": True}, "batch_size": 16}),
    "dispatch": (1, {"accelerator": {"dispatch_batches": True}}),
    "planned batches": (
        1,
        {"sampler": trainers.planned, "rows": (96,)},
    ),
}
"""Launch modes: ranks on a host, and what differs in the run."""


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


class _CutOff(TrainerCallback):
    """Pulls the cable when the last rank has done a step."""

    def __init__(self, pair: Hosts, step: int) -> None:
        self.pair, self.step = pair, step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and args.process_index == args.world_size - 1:
            self.pair.cut()


def cut_off_trainer(pair: Hosts, run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """The usual trainer, cut off from the other host after ``CUT`` steps."""
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    trainer.add_callback(_CutOff(pair, CUT))
    return trainer


def train_on_host(run: Run, seconds: float = 60) -> Steps:
    """``train(run)``, in a process group that waits so long for a message; "{rank}" in the folder is the rank."""
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=seconds))
    return train(replace(run, folder=run.folder.format(rank=os.environ["RANK"])))


def cut_off(run: Run) -> str:
    """The error in which a run ends that is cut off."""
    try:
        train_on_host(run, PATIENCE)
    except RuntimeError as error:
        return str(error)
    return ""


def run_of(folder: Path, model: str, changes: dict[str, Any]) -> Run:
    """A run of two epochs that writes a checkpoint in the second."""
    arguments = {"save_strategy": "steps", "save_steps": CHECKPOINT, **changes.get("arguments", {})}
    run = Run(str(folder), model, rows=(100,), epochs=2)
    return replace(run, **{**changes, "arguments": arguments})


def copy_checkpoints(source: Path, target: Path) -> None:
    """What one does before a resume where the hosts share no folder; each rank's random state is on its own host."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("rows-*"))


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=() if mode.startswith("planned") else DEFECT) for mode in MODES]
)
def test_run_cut_off_from_the_other_host_continues_exactly(mode: str, pair: Hosts, tmp_path: Path, model: str) -> None:
    """Cut off in epoch 1, each rank ends with an error; resumed, each sees the rows of an uninterrupted run."""
    per_host, changes = MODES[mode]
    launched = partial(run_ranks, 2 * per_host, on_host, pair, per_host)
    whole = launched(train_on_host, run_of(tmp_path / "whole", model, changes))
    run = run_of(tmp_path / ("cut-{rank}" if "a folder" in mode else "cut"), model, changes)
    errors = launched(cut_off, replace(run, trainer=partial(cut_off_trainer, pair)))
    pair.mend()
    if "{rank}" in run.folder:
        copy_checkpoints(tmp_path / "cut-0", tmp_path / "cut-1")
    after = launched(train_on_host, continued(run))
    assert all(len(steps) == 2 * STEPS_IN_EPOCH for steps in whole)
    assert after == [steps[CHECKPOINT:] for steps in whole]
    assert all(any(text in error for text in LOST) for error in errors), errors


# PyTorch's threads abort a process now and then that tears down around them; forked ranks end so, too.
SCRIPT = """
import json, os, sys
from functools import partial
from launch import hosts, test_nodes
from conformance import runs
owner, seconds, run = json.loads(sys.argv[1])
trainer = partial(test_nodes.cut_off_trainer, hosts.Hosts(owner)) if owner else None
test_nodes.train_on_host(runs.Run(**run, trainer=trainer), seconds)
os._exit(0)
"""
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
    *("--rdzv-endpoint", "host0:29500"),
]


def torchrun(pair: Hosts, folder: Path, run: Run, cut: bool = False) -> list[tuple[int, str]]:
    """The same command on both hosts, but for the node's rank: each one's exit status, and what it printed."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    values = {name: value for name, value in asdict(run).items() if name != "trainer"}
    arguments = json.dumps([pair.owner if cut else "", PATIENCE if cut else 60, values])
    logs = [folder / f"log-{host}" for host in (0, 1)]
    both = []
    for host, log in enumerate(logs):
        command = pair.command(host, [*TORCHRUN, "--node-rank", str(host), str(script), arguments])
        with log.open("w") as output:
            both.append(subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT))
    return [(process.wait(timeout=BOUND), log.read_text()) for process, log in zip(both, logs)]


def recorded(folder: str) -> list[Steps]:
    """The rows of each rank, over all runs in a folder."""
    files = sorted(Path(folder).glob("rows-*.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.mark.defect
def test_same_torchrun_command_continues_after_the_link_was_down(
    pair: Hosts, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link goes down, torchrun ends on both hosts and names the lost peer; up again, the same command resumes."""
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    run = run_of(tmp_path / "cut", model, {})
    ends = torchrun(pair, tmp_path, run, cut=True)
    assert all(status != 0 and any(text in log for text in LOST) for status, log in ends), ends
    before = recorded(run.folder)
    pair.mend()
    ends = torchrun(pair, tmp_path, continued(run))
    assert [status for status, _ in ends] == [0, 0], ends
    whole = run_ranks(2, train, run_of(tmp_path / "whole", model, {}))
    assert [rows[: len(steps)] for rows, steps in zip(recorded(run.folder), before)] == before
    assert [rows[len(steps) :] for rows, steps in zip(recorded(run.folder), before)] == [
        steps[CHECKPOINT:] for steps in whole
    ]
