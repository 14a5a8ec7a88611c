"""What the tools of an order cost: the callback's look at each batch, the hash of the data, and a report.

Everything is measured in one process on one thread, in processor time; the shortest of some runs counts.

Prints tables, and writes them to ``benchmarks/results/order.md``. ``--quick`` takes a tenth of the rows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS")
BATCH_SIZE = 128


def shortest(work: Callable[[], Any], repeat: int = 3) -> float:
    """Processor time of the shortest run."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def texts(rows: int) -> Any:
    """Memory-mapped rows of three text columns, each query in about 50 of them."""
    import numpy as np
    from datasets import Dataset, load_from_disk

    queries = np.random.RandomState(0).randint(0, max(1, rows // 50), rows)
    columns = {
        "anchor": [f"query number {number} about nothing much" for number in queries],
        "positive": [f"passage {number} answers a question with some words" for number in range(rows)],
        "negative": [f"passage {number} answers no question, also in words" for number in range(rows)],
    }
    folder = tempfile.mkdtemp()
    Dataset.from_dict(columns).save_to_disk(folder)
    return load_from_disk(folder)


def exhaust(batches: Any) -> None:
    """Take every batch, as a loader does."""
    for _ in batches:
        pass


def cost_of_callback(data: Any) -> list[list[str]]:
    """An epoch of a sampler, plain and tracked."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import RandomSampler

    from sentence_transformers.order.tracker import SamplerPass, TrackedBatchSampler

    sampler = DefaultBatchSampler(RandomSampler(range(len(data))), batch_size=BATCH_SIZE, drop_last=False, seed=0)
    tracked = TrackedBatchSampler(sampler)

    def followed() -> None:
        tracked.current = current = SamplerPass()
        for step, _ in enumerate(tracked):
            current.take(step)
        current.take()

    plain, more = shortest(lambda: exhaust(sampler)), shortest(followed)
    return [["an epoch of the default sampler", f"{plain:.3f}"], ["… with its fingerprint", f"{more:.3f}"]]


def cost_of_hash(data: Any) -> list[list[str]]:
    """A look at the data, bounded and whole, stored in a row and not."""
    from sentence_transformers.order.dataset_hash import dataset_hash

    shuffled = data.shuffle(seed=0)
    return [
        ["hash of the data, sampled", f"{shortest(lambda: dataset_hash(data)):.3f}"],
        ["… after shuffle()", f"{shortest(lambda: dataset_hash(shuffled)):.3f}"],
        ["… of all rows", f"{shortest(lambda: dataset_hash(data, None), 1):.3f}"],
    ]


def cost_of_report(data: Any) -> list[list[str]]:
    """Two epochs on four processes."""
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.order import order_report

    args = SentenceTransformerTrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH_SIZE, use_cpu=True, report_to="none"
    )
    return [["report of two epochs on 4 processes", f"{shortest(lambda: order_report(data, args, 4), 1):.3f}"]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    rows = 100_000 if parser.parse_args().quick else 1_000_000
    os.environ.update({**dict.fromkeys(THREADS, "1"), "HF_HUB_OFFLINE": "1"})
    import datasets
    import torch

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    data = texts(rows)
    measured = [*cost_of_callback(data), *cost_of_hash(data), *cost_of_report(data)]
    lines = [
        f"{rows:,} rows × 3 text columns, batches of {BATCH_SIZE}, one core.",
        "",
        "| | seconds |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {cost} |" for name, cost in measured]
    print("\n".join(lines))
    if rows == 1_000_000:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "order.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
