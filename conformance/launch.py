"""Ranks of a distributed run, forked from one process that has done what each would do first (``preload``).

A rank forked so takes about half a second where one started by ``torchrun`` takes ten; that their orders are equal is
itself a test (``tests/launch/test_launchers.py``).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[1])
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["conformance.preload"])
TIMEOUT = 120  # seconds for all ranks of one run


class RankFailed(RuntimeError):
    """A rank ended otherwise than expected. No assertion: with ``--pristine``, a crash proves nothing of an order."""


class RanksHang(RankFailed):
    """Ranks had not ended in time."""


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, exitcode: int = 0, timeout: float = TIMEOUT
) -> list[Any]:
    """
    Call ``function(*args)`` in each of ``world_size`` gloo processes and return what each one returned, by rank.

    Raises:
        RankFailed: If a rank ends with another status than ``exitcode`` (negative: a signal).
        RanksHang: If not all have ended after ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(world_size)}
        ranks = [
            CONTEXT.Process(target=_rank, args=(folder, environment, rank, function, args))
            for rank in range(world_size)
        ]
        with _importable():
            for process in ranks:
                process.start()
        try:
            _join(ranks, folder, exitcode, timeout)
        finally:
            for process in ranks:
                process.kill()
                process.join()
        results = [Path(folder, f"{rank}.result") for rank in range(world_size)]
        return [pickle.loads(path.read_bytes()) if path.exists() else None for path in results]


@contextmanager
def _importable() -> Iterator[None]:
    """The fork server of Python before 3.13 does not take over sys.path, and passes over what it cannot import."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [before])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _rank(folder: str, environment: dict[str, str], rank: int, function: Callable[..., Any], args: Any) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank), OMP_NUM_THREADS="1")
    gc.freeze()  # what was imported before the fork stays; to look through it in each collection takes half of the run
    multiprocessing.set_start_method("fork", force=True)  # for a loader's workers, as in a script that torchrun starts
    if environment["WORLD_SIZE"] == "1":
        for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
            del os.environ[name]
    try:
        result = function(*args)
        Path(folder, f"{rank}.result").write_bytes(pickle.dumps(result))
    except BaseException:
        Path(folder, f"{time.time_ns()}-{rank}.error").write_text(traceback.format_exc())
        raise SystemExit(1) from None


def _join(ranks: list[Any], folder: str, exitcode: int, timeout: float) -> None:
    """Wait for all ranks; the first that fails ends the wait, since the others then wait for it."""
    pending = dict(enumerate(ranks))
    deadline = time.monotonic() + timeout
    while pending and time.monotonic() < deadline:
        for rank, process in list(pending.items()):
            process.join(0.05 / len(pending))
            if process.exitcode is None:
                continue
            del pending[rank]
            if process.exitcode != exitcode:
                raise RankFailed(
                    f"rank {rank} ended with status {process.exitcode}, not {exitcode}; {_first_error(folder)}"
                )
    if pending:
        raise RanksHang(f"ranks {sorted(pending)} had not ended after {timeout:.0f} s")


def _first_error(folder: str) -> str:
    """What the first rank to fail raised: it may end after those that fail because they have lost it."""
    errors = sorted(Path(folder).glob("*.error"))
    return f"rank {errors[0].stem.split('-')[1]} raised:\n{errors[0].read_text()}" if errors else "no rank raised"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
