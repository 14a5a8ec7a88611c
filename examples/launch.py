"""Child processes that cannot be left behind: torchrun with its ranks, watched, timed out, and ended by pid.

torchrun starts every rank in a session of its own, so signalling torchrun's process group does not reach them; the
tree is listed with psutil and each process of it is signalled by its pid.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


class ChildFailed(RuntimeError):
    """A child process failed or stalled; the message holds the end of what it printed."""


def torchrun(script: Path, arguments: list[str], world_size: int) -> list[str]:
    """The command that runs `script` with as many local processes as `world_size` says."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size)]
    return [*launcher, str(script), *arguments]


def environment(world_size: int, first_on_path: Path | None = None) -> dict[str, str]:
    """The child's environment: offline, the cores shared between the ranks, and `first_on_path` imported first."""
    threads = max(1, (os.cpu_count() or 1) // world_size)
    path = [str(first_on_path)] if first_on_path else []
    path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    ours = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(path)}


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and all its descendants, launcher first so that it starts no rank anew."""
    try:
        launcher = psutil.Process(process.pid)
        family = [launcher, *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
    process.wait()


@contextmanager
def running(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `command`, its output going to `log`; nothing of it survives the block, whatever ends the block."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        kill_tree(process)


def watch(
    process: subprocess.Popen[bytes],
    log: Path,
    progress: Callable[[], int],
    stop_at: int | None = None,
    patience: float = 180.0,
) -> None:
    """Wait until the process ends or `progress` reaches `stop_at`, whichever comes first.

    Args:
        process (subprocess.Popen): The process to wait for.
        log (Path): Where its output goes; the end of it is part of the failure's message.
        progress (Callable): Called five times a second; returns the number of steps done.
        stop_at (int, optional): Return as soon as this many steps are done, with the process still running.
        patience (float): Seconds without a further step after which the process counts as stalled.
    """
    done, since = progress(), time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        now = progress()
        if stop_at is not None and now >= stop_at:
            return
        if now != done:
            done, since = now, time.monotonic()
        if time.monotonic() - since > patience:
            raise ChildFailed(f"No further step for {patience:.0f} seconds, after step {done}.\n{tail(log)}")
    progress()
    if process.returncode != 0:
        raise ChildFailed(f"The training process ended with exit status {process.returncode}.\n{tail(log)}")
    if stop_at is not None:
        raise ChildFailed(f"The training ended before step {stop_at}, so it could not be killed there.\n{tail(log)}")


def tail(log: Path, lines: int = 20) -> str:
    """What the ranks printed last: torchrun's own report is left out, and of a progress bar all but its last state."""
    printed = re.split(r"\n[^\n]*failed \(exitcode", log.read_text(encoding="utf-8", errors="replace"))[0]
    last = [line.rsplit("\r", 1)[-1] for line in printed.split("\n") if line.strip()]
    return f"From {log}:\n" + "\n".join(f"  {line}" for line in last[-lines:])
