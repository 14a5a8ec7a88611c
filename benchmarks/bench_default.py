"""What the fork costs whoever opts in to nothing: a training script on the fork against the same on the release.

``python benchmarks/bench_default.py RELEASE FORK`` takes the folders that the two packages are installed in. A round
is a process on the release, another on the release, and one on the fork; a figure is the median over the rounds of the
ratio of two processes of one round, with its quartiles. The ratio of the release to itself shows the noise.

Prints a table, and writes it to ``benchmarks/results/default.md``. ``--quick`` takes few rounds of few rows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "default.md"
ROOT = Path(__file__).parents[1]
SIZES, ROUNDS = (1_000, 10_000_000), 5
STEPS, SKIPPED, BATCH_SIZE = 80, 20, 16
WHAT = ("import", "first step", "step", "peak memory")


def measure(model: str, data: str, folder: str) -> dict[str, float]:
    """
    Train in this process.

    Returns:
        Seconds to import the package, from building the trainer to the end of the first step, and of the median step
        thereafter; and the highest resident memory, KiB.
    """
    start = time.perf_counter()
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    imported = time.perf_counter() - start
    from datasets import load_from_disk
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(time.perf_counter())

    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    trained, rows = SentenceTransformer(model, device="cpu"), load_from_disk(data)
    built = time.perf_counter()
    trainer = SentenceTransformerTrainer(
        model=trained,
        args=SentenceTransformerTrainingArguments(
            folder, max_steps=STEPS, per_device_train_batch_size=BATCH_SIZE, logging_strategy="no", **settings
        ),
        train_dataset=rows,
        loss=MultipleNegativesRankingLoss(trained),
        callbacks=[Clock()],
    )
    trainer.train()
    steps = [end - begin for begin, end in zip(ends[SKIPPED:], ends[SKIPPED + 1 :])]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return dict(zip(WHAT, (imported, ends[0] - built, statistics.median(steps), memory)))


def fresh(package: str, model: str, data: str) -> dict[str, float]:
    """One measurement in a process of its own, on one thread."""
    environment = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", model, data, folder]
        output = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, cwd=folder
        ).stdout
    return json.loads(output.strip().splitlines()[-1])


def texts(rows: int, folder: str) -> str:
    """The folder of memory-mapped pairs of texts, all distinct."""
    import pyarrow as pa
    from datasets import Dataset

    blocks = []
    for start in range(0, rows, 100_000):
        numbers = range(start, min(rows, start + 100_000))
        columns = {
            "anchor": [f"name {number}" for number in numbers],
            "positive": [f"text {number}" for number in numbers],
        }
        blocks.append(pa.table(columns))
    Dataset(pa.concat_tables(blocks)).save_to_disk(folder)
    return folder


def row(rows: int, what: str, rounds: list[list[dict[str, float]]]) -> str:
    """A line of the table."""
    release = statistics.median(first[what] for first, _, _ in rounds)
    noise = statistics.quantiles([again[what] / first[what] for first, again, _ in rounds], n=4)
    fork = statistics.quantiles([fork[what] / first[what] for first, _, fork in rounds], n=4)
    shown = f"{release / 1024:,.0f} MiB" if what == "peak memory" else f"{release * 1e3:,.1f} ms"
    cells = [
        f"{rows:,}",
        what,
        shown,
        *(f"{middle:.3f} ({low:.3f} to {high:.3f})" for low, middle, high in (fork, noise)),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="FOLDER", help="that of the release, that of the fork")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1,000 rows, not kept")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "DATA", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    if len(arguments.packages) != 2:
        parser.error("it takes two folders: that of the release, that of the fork")
    release, fork = (str(Path(folder).resolve()) for folder in arguments.packages)
    sys.path.insert(0, str(ROOT))
    from conformance.runs import small_model

    heads = ["rows", "what", "release", "fork / release (quartiles)", "release / release (quartiles)"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        model = str(small_model(Path(folder)))
        for rows in SIZES[:1] if arguments.quick else SIZES:
            data = texts(rows, f"{folder}/{rows}")
            turns = [release, release, fork]
            rounds = [
                [fresh(package, model, data) for package in turns] for _ in range(3 if arguments.quick else ROUNDS)
            ]
            lines += [row(rows, what, rounds) for what in WHAT]
    print("\n".join(lines))
    if not arguments.quick:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
