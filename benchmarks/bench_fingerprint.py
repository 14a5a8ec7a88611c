"""What the fingerprint of an order costs, beside the sampler whose order it is; and the digest of the data.

Everything is measured in one process on one thread, in processor time, plain and watched passes by turns; the
shortest of some runs counts. A watched pass does what the trainer does: it counts each step, and digests its rows.
What a watched pass takes more is measured apart from what the sampler itself takes, which would blur it: of samplers
that yield lists, the time between two batches, watched and not; of those that draw an array, its digest, and the step
that a batch makes through the watch.

Prints tables, and writes them to ``benchmarks/results/fingerprint.md``. ``--quick`` takes a tenth of the rows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS")
BATCH_SIZE = 128
GOAL = 0.02


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of a run."""
    start = time.process_time()
    work()
    return time.process_time() - start


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


def samplers(data: Any) -> dict[str, tuple[Any, int]]:
    """The samplers, and how often a pass of each is measured."""
    import torch
    from sentence_transformers.base.planned import PlannedNoDuplicatesBatchSampler
    from sentence_transformers.base.sampler import (
        DefaultBatchSampler,
        NoDuplicatesBatchSampler,
        ProportionalBatchSampler,
    )
    from torch.utils.data import BatchSampler, ConcatDataset, RandomSampler

    common: dict[str, Any] = {"batch_size": BATCH_SIZE, "drop_last": False, "seed": 0}
    parts = [data.select(range(low, low + len(data) // 2)) for low in (0, len(data) // 2)]
    several = [DefaultBatchSampler(part, **common) for part in parts]
    generator = torch.Generator()
    hashed = NoDuplicatesBatchSampler(data, precompute_hashes=True, generator=torch.Generator(), **common)
    hashed._build_hashes()
    return {
        "batch_sampler": (DefaultBatchSampler(data, **common), 40),
        "no_duplicates_planned": (PlannedNoDuplicatesBatchSampler(data, **common), 25),
        "no_duplicates_hashed": (hashed, 3),
        "no_duplicates": (NoDuplicatesBatchSampler(data, generator=torch.Generator(), **common), 1),
        "batch_sampler, 2 datasets": (
            ProportionalBatchSampler(ConcatDataset(parts), several, generator=generator, seed=0),  # type: ignore[arg-type]
            15,
        ),
        "PyTorch's, shuffling": (BatchSampler(RandomSampler(range(len(data))), BATCH_SIZE, False), 15),
    }


class Timed:
    """A sampler that notes how long it waits until its next batch is asked for."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.waited = 0.0

    def __iter__(self) -> Iterator[list[int]]:
        self.waited = 0.0
        for batch in self.sampler:
            start = time.process_time()
            yield batch
            self.waited += time.process_time() - start


def cost_of_arrays(sampler: Any, repeat: int) -> tuple[float, float]:
    """Seconds of a plain pass over a sampler that draws its order as an array, and what a watched one takes more."""
    from sentence_transformers.base.fingerprint import OrderDigest

    order = sampler._draw_order()
    batches = list(sampler._cut_order(order))

    def passed_on() -> Iterator[list[int]]:
        yield from iter(batches)

    def shortest(work: Callable[[], Any]) -> float:
        return min(seconds(work) for _ in range(repeat))

    layer = shortest(lambda: exhaust(passed_on())) - shortest(lambda: exhaust(iter(batches)))
    return shortest(lambda: exhaust(iter(sampler))), layer + shortest(lambda: OrderDigest().update(order))


def cost_of_lists(sampler: Any, repeat: int) -> tuple[float, float]:
    """Seconds of a plain pass over a sampler that yields lists, and what a watched one takes more."""
    from sentence_transformers.base.watching import watch_order
    from torch.utils.data import DataLoader

    timed = Timed(sampler)

    def watched() -> None:
        order.expect()
        for step, _ in enumerate(timed):
            order.count(step)
        order.fingerprint()

    passes, plainly, watchfully = [], [], []
    for _ in range(repeat):
        passes.append(seconds(lambda: exhaust(enumerate(timed))))
        plainly.append(timed.waited)
        with watch_order(DataLoader([], batch_sampler=timed)) as order:
            seconds(watched)
        watchfully.append(timed.waited)
    return min(passes), min(watchfully) - min(plainly)


def exhaust(batches: Iterator[Any]) -> None:
    """Take every batch, as a loader does."""
    for _ in batches:
        pass


def cost_of_contents(data: Any) -> list[tuple[str, float]]:
    """Seconds of digests of the data."""
    from sentence_transformers.base.contents import contents_digest

    views = {
        "as stored": data,
        "after shuffle()": data.shuffle(seed=0),
        "10,000 rows, selected at random": data.shuffle(seed=0).select(range(min(10_000, len(data)))),
    }
    return [
        (name, min(seconds(lambda view=view: contents_digest(view)) for _ in range(3)))  # type: ignore[misc]
        for name, view in views.items()
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    rows = 100_000 if parser.parse_args().quick else 1_000_000
    os.environ.update({**dict.fromkeys(THREADS, "1"), "HF_HUB_OFFLINE": "1"})
    import datasets
    import torch
    from sentence_transformers.base.watching import _DRAW_WHOLE

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    data = texts(rows)
    measured = []
    for name, (sampler, repeat) in samplers(data).items():
        cost = cost_of_arrays if type(sampler).__iter__ in _DRAW_WHOLE else cost_of_lists
        plain, more = cost(sampler, repeat)
        figures = [f"{spent * 1e9 / rows:.2f}" for spent in (plain, more)]
        measured.append([name, *figures, f"{more / plain:.1%}", "yes" if more < GOAL * plain else "no"])
    lines = [
        f"{rows:,} rows × 3 text columns, batches of {BATCH_SIZE}, one core.",
        "",
        *table(["sampler", "an epoch, ns a row", "fingerprint, ns a row", "share", f"< {GOAL:.0%}"], measured),
        "",
        *table(["digest of the data", "seconds"], [[name, f"{cost:.3f}"] for name, cost in cost_of_contents(data)]),
    ]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    if rows == 1_000_000:
        (RESULTS / "fingerprint.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
