"""FSDP's real wrapper and checkpoints, on two gloo processes: the epoch arrives, and a resume goes on exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, continued, train

pytestmark = pytest.mark.slow
SHARDED = {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}}


def _fsdp_on_cpu(state: AcceleratorState, begin: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    """accelerate lists the accelerators that FSDP may run on; PyTorch's FSDP runs on the CPU as well."""
    begin(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        state.fsdp_plugin = fsdp_plugin
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


class _Sharded(TrainerCallback):
    """FSDP must have wrapped the model in fact."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert isinstance(self.trainer.model_wrapped, FSDPModule)


def fsdp_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """The usual trainer under FSDP. The pooler, which no sentence embedding uses, has no optimizer state to load."""
    begin = AcceleratorState.__init__
    AcceleratorState.__init__ = lambda state, *args, **kwargs: _fsdp_on_cpu(state, begin, *args, **kwargs)
    try:
        trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    finally:
        AcceleratorState.__init__ = begin
    trainer.model[0].auto_model.pooler.requires_grad_(False)
    trainer.add_callback(_Sharded(trainer))
    return trainer


def failure_of(function: Any) -> tuple[Any, str]:
    """What a call returns, or how a rank of it failed."""
    try:
        return function(), ""
    except RankFailed as failed:
        return None, str(failed)


@pytest.mark.defect
def test_sharded_run_resumes_exactly(tmp_path: Path, model: str) -> None:
    """Sharded by FSDP, each epoch has an order of its own, and a resume in epoch 1 the rows of a whole run."""
    launched = partial(run_ranks, 2, train)
    run = Run(
        str(tmp_path / "whole"), model, rows=(100,), epochs=2, arguments=SHARDED, trainer=fsdp_trainer, gradients=True
    )
    whole = launched(run)
    assert all(steps[:6] != steps[6:] and len(steps) == 12 for steps in whole)
    cut = replace(run, folder=str(tmp_path / "cut"), stop_after=8)
    before = launched(cut)
    after, failure = failure_of(partial(launched, continued(cut)))
    assert not failure
    assert [one + other for one, other in zip(before, after)] == whole
