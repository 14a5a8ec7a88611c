"""Measure, and write `benchmarks/results/quality.md` with its plot: `python -m benchmarks.quality`.

Runs are kept in `build/quality/runs.jsonl` as they are made; a run that is there is not made again. Remove that folder
to measure anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.quality.arms import ARMS, SEEDS, WORLD, Stack

ROOT = Path(__file__).parents[2]
SCRATCH = ROOT / "build" / "quality"
BLOCK = 2  # seeds that one group of processes runs before the other stack has its turn


def records(path: Path) -> list[dict[str, Any]]:
    """The runs made so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def missing(stack: Stack, seeds: range, path: Path) -> list[tuple[str, int]]:
    """Runs of a stack that are still to be made, seed by seed."""
    made = {(record["arm"], record["seed"]) for record in records(path)}
    wanted = [(arm.name, seed) for seed in seeds for arm in ARMS if arm.stack == stack and seed - SEEDS[0] < arm.seeds]
    return [run for run in wanted if run not in made]


def group(stack: Stack, todo: list[tuple[str, int]], path: Path) -> None:
    """Make runs in one group of processes of this interpreter's stack."""
    from benchmarks.quality.run import run_all
    from conformance.launch import run_ranks

    run_ranks(WORLD, run_all, stack, todo, path, SCRATCH / "checkpoints", timeout=3600)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pristine", type=Path, default=ROOT / "build" / "pristine", help="the release")
    parser.add_argument("--report", action="store_true", help="write the report of the runs that are there")
    parser.add_argument("--group", nargs=2, metavar=("STACK", "RUNS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    path = SCRATCH / "runs.jsonl"
    if options.group:
        return group(options.group[0], json.loads(options.group[1]), path)
    for start in [] if options.report else range(0, len(SEEDS), BLOCK):
        for stack in ("fork", "release"):
            todo = missing(stack, SEEDS[start : start + BLOCK], path)
            if todo:
                first = [str(options.pristine)] if stack == "release" else []
                search = os.pathsep.join([*first, *filter(None, [os.environ.get("PYTHONPATH")])])
                command = [sys.executable, "-m", "benchmarks.quality", "--group", stack, json.dumps(todo)]
                subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": search}, check=True)
    from benchmarks.quality.report import write

    write(records(path))


if __name__ == "__main__":
    main()
