"""DeepSpeed's real engine, ZeRO stages 1 to 3, on two gloo processes: the epoch arrives, and a resume goes on exactly.

DeepSpeed lies in a folder of its own (``make test-all`` fills it), which only the runs here have on their path: where
it is installed, accelerate imports it in every run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from packaging.version import Version
from transformers import TrainerCallback

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, Steps, continued, train

pytestmark = [pytest.mark.wide, pytest.mark.xdist_group("deepspeed")]
ROOT = Path(__file__).parents[2]
DEEPSPEED = ROOT / "build" / "deepspeed"
# transformers 5.20 waits for ever when it saves a checkpoint of stage 3, with the release as well; 5.23 does not
STAGES = (1, 2, 3) if Version(transformers.__version__) >= Version("5.23") else (1, 2)
STOP_AFTER = 8  # optimizer steps, of 6 an epoch


def zero(stage: int) -> dict[str, Any]:
    """Training arguments: nothing but ZeRO, with the trainer's own optimizer."""
    config = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 100_000},
        "zero_allow_untested_optimizer": True,
    }
    return {"deepspeed": config}


class _Engine(TrainerCallback):
    """DeepSpeed must have taken the steps in fact."""

    def __init__(self, trainer: Any, stage: int) -> None:
        self.trainer, self.stage = trainer, stage

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from deepspeed import DeepSpeedEngine

        engine = self.trainer.model_wrapped
        assert isinstance(engine, DeepSpeedEngine)
        assert (engine.zero_optimization_stage(), engine.dp_world_size) == (self.stage, 2)
        assert engine.global_steps == state.global_step


def zero_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """The usual trainer; DeepSpeed is kept from compiling an extension, in whose place gloo does."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    trainer.add_callback(_Engine(trainer, arguments["deepspeed"]["zero_optimization"]["stage"]))
    return trainer


def run_stages(folder: str, model: str) -> None:
    """What runs with DeepSpeed on its path: for each stage, the rows of a whole run, a stopped, and a resumed one."""
    rows = {}
    for stage in STAGES:
        run = Run(f"{folder}/whole-{stage}", model, trainer=zero_trainer, arguments=zero(stage), gradients=True)
        cut = replace(run, folder=f"{folder}/cut-{stage}", stop_after=STOP_AFTER)
        rows[stage] = [run_ranks(2, train, one) for one in (run, cut, continued(cut))]
    Path(folder, "rows.json").write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, model: str) -> dict[str, list[list[Steps]]]:
    """By stage: of a whole run, a stopped, and a resumed one, the rows of each rank at each step."""
    if not DEEPSPEED.is_dir():
        if os.environ.get("CI"):
            raise FileNotFoundError(f"{DEEPSPEED} is missing: run `make test-all`")
        pytest.skip("DeepSpeed is not there: run `make build/deepspeed/.ready`")
    folder = tmp_path_factory.mktemp("deepspeed")
    path = [os.environ.get("PYTHONPATH", ""), str(DEEPSPEED), str(ROOT), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "DS_ACCELERATOR": "cpu"}
    call = f"import test_deepspeed; test_deepspeed.run_stages({str(folder)!r}, {model!r})"
    done = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, list[list[Steps]]] = json.loads((folder / "rows.json").read_text())
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_deepspeed_takes_the_rows_of_ddp(stage: int, rows: Any, tmp_path: Path, model: str) -> None:
    """Each rank has, at each step, the rows that it has under DDP: each epoch in an order of its own."""
    whole, _, _ = rows[str(stage)]
    assert whole == run_ranks(2, train, Run(str(tmp_path), model))
    assert all(len({str(steps[low : low + 6]) for low in (0, 6, 12)}) == 3 for steps in whole)


@pytest.mark.defect
@pytest.mark.parametrize("stage", STAGES)
def test_a_resume_under_deepspeed_is_exact(stage: int, rows: Any) -> None:
    """Stopped in epoch 1 and resumed from DeepSpeed's checkpoint, a run has the rows of a whole one."""
    whole, before, after = rows[str(stage)]
    assert [one + other for one, other in zip(before, after)] == whole
    assert [len(steps) for steps in before] == [STOP_AFTER] * 2
