"""Planned batches of rows with mined negatives against ``no_duplicates_hashed``: time, rows used, false negatives.

Negatives are drawn from the positives of other rows, evenly, from a hot pool, or by Zipf's law; values are integers,
so that planning alone is measured. Each measurement runs in a fresh process on one thread; ``no_duplicates_hashed``,
which keeps all values apart and whose time can grow with the square of the rows, is stopped after ``LIMIT`` seconds;
it fills batches as under DDP, with ``drop_last``. Writes ``benchmarks/results/negatives.md``. Run with ``--quick``
(a few minutes) or without (1,000,000 rows, a quarter of an hour).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

RESULTS = Path(__file__).parent / "results" / "negatives.md"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LIMIT = 120  # seconds of an epoch of no_duplicates_hashed

# name: (rows, negatives, size of the pool, exponent of Zipf's law, strict, batch sizes)
CASES: dict[str, tuple[int, int, int, float, bool, tuple[int, ...]]] = {
    "5 negatives, hot pool of 500": (10_000, 5, 500, 0, False, (512,)),
    "5 negatives, Zipf pool of 2,000": (10_000, 5, 2_000, 1, False, (512,)),
    "8 negatives of 4,000": (4_000, 8, 4_000, 0, False, (128, 512)),
    "8 negatives of 2,000": (4_000, 8, 2_000, 0, False, (128, 512)),
    "8 negatives of 4,000, strict": (4_000, 8, 4_000, 0, True, (128,)),
    "5 negatives of 6,000": (6_000, 5, 6_000, 0, False, (1_000,)),
    "triplets, each anchor in 3 rows": (160_000, 1, 0, 0, False, (128, 1_024, 8_192)),
}
FULL = {"5 negatives, Zipf pool of 50,000": (1_000_000, 5, 50_000, 1.0, False, (128, 1_024, 8_192))}
GOALS = "at most 10 plain shuffles a row and column, or 1 s per 100,000 rows"


def identities(case: str) -> np.ndarray:
    """Values of shape (rows, columns): anchor, positive, negatives."""
    import numpy as np

    rows, negatives, pool, exponent, _, _ = {**CASES, **FULL}[case]
    generator = np.random.RandomState(0)
    if not pool:  # as in ANLI: each premise with a hypothesis it entails, and one that it does not
        numbers = np.arange(rows)
        return np.column_stack([numbers // 3, rows + numbers, 2 * rows + numbers])
    weights = 1 / np.arange(1, pool + 1) ** exponent
    drawn = generator.choice(pool, (rows, negatives), p=weights / weights.sum())
    return np.column_stack([rows + np.arange(rows), np.arange(rows), drawn])


def measure(kind: str, case: str, batch_size: int) -> dict[str, float]:
    """Planned batches or upstream's, in this process."""
    from sentence_transformers.planned.duplicates import group_by_value
    from sentence_transformers.planned.false_negatives import count_false_negatives

    values = identities(case)
    strict = {**CASES, **FULL}[case][4]
    figures: dict[str, float] = {}
    start = time.perf_counter()
    duplicates = group_by_value(values, values.shape[1] if strict else 2)
    if kind == "planned":
        batches = _planned(duplicates, batch_size, figures, start)
    else:
        batches = _upstream(values, batch_size, figures)
    figures["rows used"] = len({row for batch in batches for row in batch}) / len(values)
    figures["false negatives"] = count_false_negatives(group_by_value(values, 2), batches).texts
    figures["shuffle"] = _shuffle(len(values), batch_size)
    return figures


def _planned(duplicates: Any, batch_size: int, figures: dict[str, float], start: float) -> list[list[int]]:
    from sentence_transformers.planned.plan import capacity, plan_epoch

    held = capacity(duplicates, batch_size)
    figures["prepare"] = time.perf_counter() - start
    start = time.perf_counter()
    batches = [batch.tolist() for batch in plan_epoch(duplicates, held, 0, 1)]
    figures["epoch"] = time.perf_counter() - start
    return batches


def _upstream(values: np.ndarray, batch_size: int, figures: dict[str, float]) -> list[list[int]]:
    import torch
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    rows: Any = SimpleNamespace(column_names=[])
    sampler = NoDuplicatesBatchSampler(rows, batch_size, drop_last=True, generator=torch.Generator())
    sampler.dataset = range(len(values))
    sampler.precompute_hashes, sampler._row_hashes = True, values
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(LIMIT)
    start, batches = time.perf_counter(), []
    try:
        for batch in sampler:
            batches.append(batch)
    except TimeoutError:
        figures["stopped"] = True
    signal.alarm(0)
    figures["epoch"] = time.perf_counter() - start
    return batches


def _stop(*_: Any) -> None:
    raise TimeoutError


def _shuffle(rows: int, batch_size: int) -> float:
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import RandomSampler

    times = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in DefaultBatchSampler(RandomSampler(range(rows)), batch_size, False):  # type: ignore[arg-type]
            pass
        times.append(time.perf_counter() - start)
    return min(times)


def fresh(kind: str, case: str, batch_size: int) -> dict[str, float]:
    """One measurement in a process of its own, on one thread."""
    print(f"{kind:8} {case:34} batch {batch_size}", file=sys.stderr, flush=True)
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--one", kind, case, str(batch_size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def line(case: str, batch_size: int, columns: int) -> str:
    """A line of the table."""
    planned, upstream = fresh("planned", case, batch_size), fresh("upstream", case, batch_size)
    rows = {**CASES, **FULL}[case][0]
    shuffles = planned["epoch"] / planned["shuffle"] / columns
    met = shuffles <= 10 or planned["epoch"] <= rows / 100_000
    cells = [
        case,
        f"{rows:,}",
        f"{batch_size:,}",
        f"{planned['prepare']:.2f}",
        f"{planned['epoch']:.2f}",
        f"{shuffles:.1f}",
        f"{planned['rows used']:.2%}",
        f"{planned['false negatives']:,}",
        f"{upstream['epoch']:.2f}{', stopped' if 'stopped' in upstream else ''}",
        f"{upstream['rows used']:.2%}",
        f"{upstream['false negatives']:,}",
        "yes" if met else "no",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the case of 1,000,000 rows")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "CASE", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, case, batch_size = arguments.one
        print(json.dumps(measure(kind, case, int(batch_size))))
        return
    heads = ["data", "rows", "batch", "prepare, s", "epoch, s", "shuffles a column", "rows used", "false negatives"]
    heads += ["`no_duplicates_hashed`: epoch, s", "rows used", "false negatives", "goal met"]
    lines = [f"Goal: an epoch takes {GOALS}; every row is used, none beside a false negative.", ""]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for case, (_, negatives, *_, sizes) in {**CASES, **({} if arguments.quick else FULL)}.items():
        lines += [line(case, size, 2 + negatives) for size in sizes]
    print("\n".join(lines))
    if not arguments.quick:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
