"""``python -m tests.harm OUT``: run the no-harm table on the package that comes first, and write what was seen.

The imports are done once; each number of processes has forked processes that run its cases one after the other, two
ranks in one process group. After a case that fails, they are forked anew, since a rank may wait for one that raised.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import datasets
import torch
from transformers.utils import logging as transformers_logging

from conformance.launch import _free_port
from tests.harm import bench as benches
from tests.harm.bench import Bench, watching
from tests.harm.kept import leave_arguments
from tests.harm.table import Case, load

CONTEXT = multiprocessing.get_context("fork")
LIMIT = 120.0
"""Seconds for one case."""
PATIENCE = 5.0
"""Seconds that the other ranks have when one has failed."""


def run_cases(cases: Sequence[Case], world_size: int, folder: Path, shared: Path) -> dict[str, Any]:
    """
    Run cases on so many processes.

    Args:
        cases: In the order in which they run.
        world_size: The number of processes.
        folder: Where they write; each has a folder in it.
        shared: Of all runs of the table.
    """
    left = list(cases)
    while left:
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(world_size)}
        ranks = [
            CONTEXT.Process(target=_rank, args=(left, rank, world_size, environment, folder, shared))
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        try:
            left = _follow(ranks, left, folder)
        finally:
            for process in ranks:
                process.kill()
                process.join()
    return {case.name: [_read(folder / case.name, rank) for rank in range(world_size)] for case in cases}


def _follow(ranks: Sequence[Any], cases: list[Case], folder: Path) -> list[Case]:
    """Wait until all cases are done, or one has failed; those that are left."""
    for number, case in enumerate(cases):
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            done = [_read(folder / case.name, rank) for rank in range(len(ranks))]
            if all(done):
                break
            if any(seen and seen["error"] for seen in done):
                deadline = min(deadline, time.monotonic() + PATIENCE)
            if not all(process.is_alive() for process in ranks):
                deadline = min(deadline, time.monotonic() + PATIENCE)
            time.sleep(0.02)
        if not all(done) or any(seen["error"] for seen in done):
            return cases[number + 1 :]
    return []


def _read(folder: Path, rank: int) -> Any:
    path = folder / f"seen-{rank}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _rank(
    cases: Sequence[Case], rank: int, world_size: int, environment: dict[str, str], folder: Path, shared: Path
) -> None:
    """Run cases in this process until one fails."""
    gc.freeze()  # what was imported before the fork stays; each run collects garbage
    multiprocessing.set_start_method("fork", force=True)  # for a loader's workers
    if world_size > 1:
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=LIMIT))
    for case in cases:
        bench = Bench(folder / case.name, shared, rank, world_size)
        bench.output.mkdir(parents=True, exist_ok=True)
        _run(case, bench)
        seen = vars(bench.seen)
        path = bench.folder / f"seen-{rank}"
        path.write_text(json.dumps(seen), "utf-8")
        path.rename(path.with_suffix(".json"))
        if bench.seen.error:
            return


def _run(case: Case, bench: Bench) -> None:
    output = (bench.folder / f"output-{bench.rank}.txt").open("w")
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    with watching(bench):
        try:
            case.function(bench)
        except Exception as error:
            bench.seen.error = f"{type(error).__name__}: {error}"
            traceback.print_exc()


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.harm", description=__doc__, allow_abbrev=False)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--case", action="append", help="run this one; may be given several times")
    parser.add_argument("--shared", type=Path, help="a folder in which the release leaves files to the fork")
    parser.add_argument("--release", action="store_true", help="this is the release, which leaves them")
    parser.add_argument("--keep", type=Path, help="a folder for the output of the cases, to look at")
    options = parser.parse_args()
    cases = [case for name, case in load().items() if name in (options.case or load()) and not case.missing]
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    benches.tokenizer()
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        shutil.rmtree(folder, ignore_errors=True)
        shared = options.shared or folder
        shared.mkdir(parents=True, exist_ok=True)
        if options.release or not options.shared:
            leaving = CONTEXT.Process(target=leave_arguments, args=(shared,))
            leaving.start()
            leaving.join()
        seen = {
            str(world): run_cases([case for case in cases if world in case.worlds], world, folder / str(world), shared)
            for world in sorted({world for case in cases for world in case.worlds})
        }
    options.out.write_text(json.dumps(seen, indent=1), "utf-8")


if __name__ == "__main__":
    main()
