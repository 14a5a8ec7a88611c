"""Ray Train on two CPU workers, with ``prepare_trainer``: the rows of forked ranks, whole and resumed.

Ray lies in a folder of its own (``make test-all`` fills it), which only the runs here have on their path: where it is
installed, accelerate and transformers import it in every run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, Steps, continued, train

pytestmark = [pytest.mark.wide, pytest.mark.xdist_group("ray")]
ROOT = Path(__file__).parents[2]
RAY = ROOT / "build" / "ray"
STOP_AFTER = 8  # optimizer steps, of 6 an epoch


def prepared_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """The usual trainer, as Ray has it."""
    from ray.train.huggingface.transformers import prepare_trainer

    return prepare_trainer(runs.sentence_transformer_trainer(run, arguments, dataset))


def train_in_worker(settings: dict[str, Any]) -> None:
    """What each worker runs; the ranks note their rows in the run's folder."""
    train(Run(**settings, trainer=prepared_trainer))


def launch(runs_: list[dict[str, Any]], storage: str) -> None:
    """Have Ray train the runs, one after the other; called in a process with Ray on its path."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(num_cpus=2, include_dashboard=False)
    for settings in runs_:
        trainer = TorchTrainer(
            train_in_worker,
            train_loop_config=settings,
            scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
            run_config=RunConfig(storage_path=storage),
        )
        trainer.fit()
    ray.shutdown()


def recorded(folder: str) -> list[Steps]:
    """The rows of each rank, over all runs in a folder."""
    files = sorted(Path(folder).glob("rows-*.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.fixture(scope="module")
def under_ray(tmp_path_factory: pytest.TempPathFactory, model: str) -> tuple[list[Steps], list[Steps]]:
    """The rows of a whole run, and of one that was stopped in epoch 1 and resumed."""
    if not RAY.is_dir():
        if os.environ.get("CI"):
            raise FileNotFoundError(f"{RAY} is missing: run `make test-all`")
        pytest.skip("Ray is not there: run `make build/ray/.ready`")
    folder = tmp_path_factory.mktemp("ray")
    whole = Run(str(folder / "whole"), model)
    cut = replace(whole, folder=str(folder / "cut"), stop_after=STOP_AFTER)
    settings = [
        {name: value for name, value in asdict(run).items() if name != "trainer"}
        for run in (whole, cut, continued(cut))
    ]
    here = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(RAY), str(ROOT), here]))
    environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    environment["RAY_raylet_start_wait_time_s"] = "180"  # where other tests run beside it
    call = f"import test_ray; test_ray.launch({settings!r}, {str(folder / 'storage')!r})"
    done = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return recorded(whole.folder), recorded(cut.folder)


def test_ray_takes_the_rows_of_ddp(under_ray: Any, tmp_path: Path, model: str) -> None:
    """Each worker has, at each step, the rows that a forked rank has."""
    assert under_ray[0] == run_ranks(2, train, Run(str(tmp_path), model))


@pytest.mark.defect
def test_a_resume_under_ray_is_exact(under_ray: Any) -> None:
    """Stopped in epoch 1 and resumed, the run has the rows of a whole one."""
    whole, resumed = under_ray
    assert resumed == whole
