"""Seconds of a training step with and without parameters of the loss's own, on two gloo processes.

``python benchmarks/bench_weights.py RELEASE FORK`` takes the folders that hold the two packages, and prints a row for
each loss: the median step of both, and the median of the differences of pairs of runs made in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PAIRS, STEPS, SKIPPED = 5, 40, 10
LOSSES = ("MultipleNegativesRankingLoss", "SoftmaxLoss")


def step_seconds(package: str, loss: str, model: str) -> float:
    """The median step of one run, on rank 0."""
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, root]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "run", loss, model]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(json.loads(output.strip().splitlines()[-1]))


def _run(loss: str, model: str) -> None:
    from conformance.launch import run_ranks

    sys.path.insert(0, str(Path(__file__).parent))
    from bench_weights import timed

    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run_ranks(2, timed, folder, loss, model, timeout=600)[0]))


def timed(folder: str, loss: str, model: str) -> float:
    """Train on this rank; the median step without the first ones."""
    import time

    from sentence_transformers.sentence_transformer import losses

    from conformance.runs import names
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    trained = SentenceTransformer(model, device="cpu")
    trained.model_card_data.generate_widget_examples = False
    rows = names(16 * STEPS)
    rows = rows.remove_columns("label").add_column("label", [row % 3 for row in range(len(rows))])
    made = losses.SoftmaxLoss(trained, 16, 3) if loss == "SoftmaxLoss" else getattr(losses, loss)(trained)
    settings = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "logging_strategy": "no",
    }
    args = SentenceTransformerTrainingArguments(
        folder, use_cpu=True, report_to="none", disable_tqdm=True, batch_sampler="batch_sampler", **settings
    )
    trainer = SentenceTransformerTrainer(model=trained, args=args, train_dataset=rows, loss=made)
    step, ends = trainer.training_step, []

    def counted(*arguments: object, **keywords: object) -> object:
        output = step(*arguments, **keywords)
        ends.append(time.perf_counter())
        return output

    trainer.training_step = counted
    trainer.train()
    return statistics.median(end - begin for begin, end in zip(ends[SKIPPED:], ends[SKIPPED + 1 :]))


def main(release: str, fork: str) -> None:
    """Print the table."""
    from conformance.runs import small_model

    with tempfile.TemporaryDirectory() as folder:
        model = small_model(Path(folder))
        print("| loss | release | fork | difference |\n|---|---|---|---|")
        for loss in LOSSES:
            pairs = [[step_seconds(package, loss, model) for package in (release, fork)] for _ in range(PAIRS)]
            one, other = (statistics.median(side) for side in zip(*pairs))
            difference = statistics.median(after - before for before, after in pairs)
            print(f"| {loss} | {one * 1e3:.2f} ms | {other * 1e3:.2f} ms | {difference * 1e3:+.2f} ms |")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _run(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
