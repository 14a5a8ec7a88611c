"""Planned batches against upstream's ``no_duplicates_hashed`` and plain shuffling: time, memory, goals.

Each measurement runs in a fresh process on one thread. Prints a table, and writes it with the figures (JSON) and a
plot of time against rows to ``benchmarks/results``. Run with ``--quick`` (a minute), without (some minutes), or with
``--full`` (100 million rows: about 10 GiB of memory).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS")
Figures = dict[str, float]

# name: (batch size, share of the rows with one value, rows a query is in on average)
TEXTS = {
    "distinct": (128, 0.0, 1),
    "query ×50": (128, 0.0, 50),
    "query ×50, batch 8192": (8192, 0.0, 50),
    "one value in 1/8": (128, 0.125, 1),
}
GOALS = {"distinct": (4, 25), "query ×50": (4, 6), "query ×50, batch 8192": (4, 2), "one value in 1/8": (None, 100)}
INTEGER_BATCH = 1024
LIMITS = {"times the shuffle": 8.0, "growth of that ratio from 1 M rows": 1.5, "bytes a row and column": 32.0}


def seconds(work: Callable[[], Any], repeat: int = 1) -> float:
    """Shortest time of some runs."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def exhaust(batches: Iterable[Any]) -> None:
    """Take every batch as a list of indices, as a loader does."""
    for _ in batches:
        pass


def shuffled_batches(rows: int, batch_size: int) -> Iterable[list[int]]:
    """Plain shuffling: upstream's default batch sampler."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import RandomSampler

    return DefaultBatchSampler(RandomSampler(range(rows)), batch_size=batch_size, drop_last=False)  # type: ignore[arg-type]


def text_dataset(case: str, rows: int, folder: str) -> Any:
    """Memory-mapped rows of three text columns."""
    import numpy as np
    from datasets import Dataset, load_from_disk

    _, share, multiple = TEXTS[case]
    generator = np.random.RandomState(0)
    queries = generator.randint(0, max(1, rows // multiple), rows) if multiple > 1 else np.arange(rows)
    queries[generator.random_sample(rows) < share] = 0
    columns = {
        "anchor": [f"query number {number} about nothing much" for number in queries],
        "positive": [f"passage {number} answers a question with some words" for number in range(rows)],
        "negative": [f"passage {number} answers no question, also in words" for number in range(rows)],
    }
    Dataset.from_dict(columns).save_to_disk(folder)
    return load_from_disk(folder)


def measure_text(case: str, rows: int, upstream: bool) -> Figures:
    """Preparing and an epoch, of the plan or of upstream, on text."""
    import datasets
    import torch
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    from sentence_transformers.planned.plan import capacity, plan_epoch
    from sentence_transformers.planned.rule import Rule

    datasets.disable_progress_bars()
    batch_size = TEXTS[case][0]
    with tempfile.TemporaryDirectory() as folder:
        data = text_dataset(case, rows, folder)
        if upstream:
            sampler = NoDuplicatesBatchSampler(
                data, batch_size, False, generator=torch.Generator(), precompute_hashes=True
            )
            return {"prepare": seconds(sampler._build_hashes), "epoch": seconds(lambda: exhaust(sampler))}
        start = time.perf_counter()
        values = Rule.of(data.column_names, strict=True).duplicates(data, cache=False)
        held = capacity(values, batch_size)
        prepare = time.perf_counter() - start
    epoch = seconds(lambda: exhaust(batch.tolist() for batch in plan_epoch(values, held, 0, 0)), repeat=3)
    shuffle = seconds(lambda: exhaust(shuffled_batches(rows, batch_size)), repeat=3)
    return {"prepare": prepare, "epoch": epoch, "shuffle": shuffle, "left out": held.left_out}


def resident() -> int:
    """Highest memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_integers(rows: int, repeat: int) -> Figures:
    """Preparing, an epoch, and peak memory on two columns of integers, each value twice on average."""
    import numpy as np

    from sentence_transformers.planned.duplicates import group_by_value
    from sentence_transformers.planned.plan import capacity, plan_epoch

    before = resident()
    identities = np.empty((rows, 2), dtype=np.int64)
    generator = np.random.RandomState(0)
    for low in range(0, rows, 1 << 16):
        part = identities[low : low + (1 << 16)]
        part[:] = generator.randint(0, rows // 2, size=part.shape) + np.array([0, rows])
    start = time.perf_counter()
    values = group_by_value(identities)
    del identities
    held = capacity(values, INTEGER_BATCH)
    prepare = time.perf_counter() - start
    planning = seconds(lambda: plan_epoch(values, held, 0, 0), repeat)
    epoch = seconds(lambda: exhaust(batch.tolist() for batch in plan_epoch(values, held, 0, 1)), repeat)
    return {"prepare": prepare, "planning": planning, "epoch": epoch, "bytes": (resident() - before) / rows / 2}


def measure_shuffle(rows: int, repeat: int) -> Figures:
    """Plain shuffling of as many rows: the sampler, and the permutation alone."""
    import torch

    return {
        "shuffle": seconds(lambda: exhaust(shuffled_batches(rows, INTEGER_BATCH)), repeat),
        "permutation": seconds(lambda: torch.randperm(rows), repeat),
    }


def measure(kind: str, case: str, rows: int) -> Figures:
    """One measurement, in this process."""
    import torch

    torch.set_num_threads(1)
    repeat = 3 if rows <= 10**7 else 1
    if kind == "integers":
        return measure_integers(rows, repeat)
    if kind == "shuffle":
        return measure_shuffle(rows, repeat)
    return measure_text(case, rows, upstream=kind == "upstream")


def fresh(kind: str, case: str, rows: int) -> Figures:
    """One measurement in a process of its own, on one thread."""
    print(f"{kind:10} {case or '2 integer columns':24} {rows:>12,} rows", file=sys.stderr, flush=True)
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--one", kind, case, str(rows)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def run(texts: list[int], compared: int, integers: list[int]) -> list[dict[str, Any]]:
    """All measurements: text cases at the sizes ``texts`` (upstream at ``compared``), integers at ``integers``."""
    results: list[dict[str, Any]] = []
    for case in TEXTS:
        against = 64_000 if case == "one value in 1/8" else compared
        for rows in sorted({*texts, against}):
            results.append({"case": case, "rows": rows, "planned": fresh("planned", case, rows)})
            if rows <= against:
                results[-1]["upstream"] = fresh("upstream", case, rows)
    for rows in integers:
        figures = {**fresh("integers", "", rows), **fresh("shuffle", "", rows)}
        results.append({"case": "2 integer columns", "rows": rows, "planned": figures})
    return results


def verdicts(results: list[dict[str, Any]]) -> list[tuple[str, int, str, float, str, bool]]:
    """Case, rows, what, measured, goal, met."""
    found = []
    base = next((r["planned"] for r in results if r["case"] not in TEXTS and r["rows"] == 10**6), None)
    for result in results:
        case, rows, planned = result["case"], result["rows"], result["planned"]
        if upstream := result.get("upstream"):
            for what, goal in zip(("prepare", "epoch"), GOALS[case]):
                ratio = upstream[what] / planned[what]
                if goal:
                    found.append(
                        (case, rows, f"{what}: times faster than upstream", ratio, f"≥ {goal}", ratio >= goal)
                    )
        if case == "distinct":
            ratio = planned["epoch"] / planned["shuffle"]
            found.append((case, rows, "epoch: times the shuffle", ratio, "≤ 2", ratio <= 2))
        if case not in TEXTS and base:
            ratio = planned["epoch"] / planned["shuffle"]
            alone = planned["planning"] / planned["permutation"]
            growth = ratio / (base["epoch"] / base["shuffle"])
            for (what, limit), value in zip(LIMITS.items(), (ratio, growth, planned["bytes"])):
                found.append((case, rows, what, value, f"≤ {limit:g}", value <= limit))
            found.append((case, rows, "planning alone: times torch.randperm", alone, "", True))
    found.extend(_linear(results))
    return found


def _linear(results: list[dict[str, Any]]) -> list[tuple[str, int, str, float, str, bool]]:
    """Growth of the time a row where one value is in an eighth of the rows."""
    runs = [r for r in results if r["case"] == "one value in 1/8"]
    if len(runs) < 2:
        return []
    first, last = runs[0], runs[-1]
    growth = (last["planned"]["epoch"] / last["rows"]) / (first["planned"]["epoch"] / first["rows"])
    what = f"time a row against {first['rows']:,} rows"
    return [("one value in 1/8", last["rows"], what, growth, "≤ 2", growth <= 2)]


def show(results: list[dict[str, Any]]) -> None:
    """Print figures and goals, and write them with a plot."""
    from rich.console import Console
    from rich.table import Table

    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "planning.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table = Table("data", "rows", "what", "measured", "goal", "met", title="Planned batches")
    lines = ["| data | rows | what | measured | goal | met |", "|---|---|---|---|---|---|"]
    for case, rows, what, value, goal, met in verdicts(results):
        cells = [case, f"{rows:,}", what, f"{value:.2f}", goal, ("yes" if met else "no") if goal else ""]
        table.add_row(*cells, style="green" if met else "red")
        lines.append(f"| {' | '.join(cells)} |")
    times = Table("data", "rows", "prepare", "epoch", "upstream prepare", "upstream epoch", "shuffle", title="Seconds")
    lines += ["", "| data | rows | prepare, s | epoch, s | upstream prepare, s | upstream epoch, s | shuffle, s |"]
    lines.append("|---|---|---|---|---|---|---|")
    for result in results:
        planned, upstream = result["planned"], result.get("upstream", {})
        figures = [planned["prepare"], planned["epoch"], *map(upstream.get, ("prepare", "epoch")), planned["shuffle"]]
        cells = [result["case"], f"{result['rows']:,}", *("" if s is None else f"{s:.3f}" for s in figures)]
        times.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    console = Console(width=140)
    console.print(times)
    console.print(table)
    (RESULTS / "planning.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot(results)


def plot(results: list[dict[str, Any]]) -> None:
    """Time of an epoch against rows, log-log, with upstream and the shuffle."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 5), layout="constrained")
    for index, case in enumerate(dict.fromkeys(r["case"] for r in results)):
        runs = [r for r in results if r["case"] == case]
        compared = [r for r in runs if "upstream" in r]
        rows = [r["rows"] for r in runs]
        axes.loglog(rows, [r["planned"]["epoch"] for r in runs], f"C{index}o-", label=f"planned: {case}")
        axes.loglog(
            [r["rows"] for r in compared],
            [r["upstream"]["epoch"] for r in compared],
            f"C{index}x--",
            label=f"no_duplicates_hashed: {case}" if compared else None,
        )
    longest = sorted((r["rows"], r["planned"]["shuffle"]) for r in results)
    axes.loglog(*zip(*longest), ".:", color="grey", label="plain shuffle")
    axes.set(xlabel="rows", ylabel="seconds an epoch, one core")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(RESULTS / "planning.png", dpi=150)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes")
    size.add_argument("--full", action="store_true", help="up to 100 million rows")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "CASE", "ROWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, case, rows = arguments.one
        print(json.dumps(measure(kind, case, int(rows))))
        return
    if arguments.quick:
        show(run([8_000, 64_000], 64_000, [100_000, 1_000_000]))
        return
    show(run([8_000, 64_000, 1_000_000], 1_000_000, [10**6, 10**7, *([10**8] if arguments.full else [])]))


if __name__ == "__main__":
    main()
