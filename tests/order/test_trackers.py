"""The number that is logged comes to the trackers of transformers, exactly; each of those that are installed, offline.

``requirements/trackers.txt`` has the versions that this was tried with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from order_runs import EPOCHS, LOGGING, attempt, run_of

from conformance.launch import run_ranks
from conformance.runs import Run


def from_tensorboard(folder: Path) -> list[float]:
    """From its event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    return [event.value for event in events.Scalars("train/order_fingerprint")]


def from_mlflow(folder: Path) -> list[float]:
    """From its store."""
    import mlflow

    (run,) = mlflow.search_runs(output_format="list")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "order_fingerprint")
    return [metric.value for metric in history]


def from_wandb(folder: Path) -> list[float]:
    """The last one, which its summary keeps; what it wrote for later has a format of its own."""
    import wandb

    return [wandb.run.summary["train/order_fingerprint"]]


def from_trackio(folder: Path) -> list[float]:
    """From its database."""
    (path,) = (path for path in folder.rglob("*.db") if path.stat().st_size)
    with sqlite3.connect(path) as database:
        rows = database.execute("select metrics from metrics order by id").fetchall()
    name = "train/order_fingerprint"
    return [metrics[name] for metrics in (json.loads(row) for (row,) in rows) if name in metrics]


TRACKERS: dict[str, Callable[[Path], list[float]]] = {
    "tensorboard": from_tensorboard,
    "mlflow": from_mlflow,
    "wandb": from_wandb,
    "trackio": from_trackio,
}


def tracked(run: Run, name: str) -> tuple[Any, list[float]]:
    """Train with a tracker, and read what it has."""
    folder = Path(run.folder)
    os.environ |= {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "MLFLOW_TRACKING_URI": f"file:{folder}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
        "HF_HOME": str(folder / "hub"),
    }
    outcome = attempt(run)
    return outcome, TRACKERS[name](folder)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_has_the_fingerprints(name: str, tmp_path: Path, model: str) -> None:
    """One number an epoch."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; see requirements/trackers.txt")
    run = run_of(tmp_path, model, arguments={**LOGGING, "report_to": name})
    ((outcome, found),) = run_ranks(1, tracked, run, name)
    assert outcome.quiet and len(outcome.fingerprints) == EPOCHS
    assert found == (outcome.fingerprints if name != "wandb" else outcome.fingerprints[-1:])
