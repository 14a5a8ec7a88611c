"""The weights of a run: what model and loss hold on each process after every optimizer step.

A scenario is run once without interruption, with checkpoints, and once more from one of these. The property is kept if
the weights are equal over the processes after each step, and equal to those of the uninterrupted run after a resume.
Each loss gets parameters of its own (:class:`Scaled`), which begin with other values on each process.

Cost: one digest of all weights a step; two runs a cell.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback
from transformers.integrations import peft
from transformers.trainer_utils import IntervalStrategy
from transformers.utils.peft_utils import check_peft_version

from conformance.cells import CRASHED, HANGS, NOT_APPLICABLE, RIGHT, WRONG, Cell
from conformance.launch import RankFailed, RanksHang, run_ranks
from conformance.runs import Run, names, sentence_transformer_trainer, train
from conformance.scenarios import Scenario

WEIGHTS = "weights"
MEANING = "parameters of model and loss are equal on all ranks after each step, and after a resume as if not stopped"


@dataclass
class Record:
    """
    What one process trained.

    Args:
        model: Digests of the model's parameters, by the number of the optimizer step; of the last ``train()``.
        loss: The same of the loss's own parameters.
        end: Digests of both after ``train()`` has returned: those of the best checkpoint, where that is loaded.
        best: The step whose checkpoint was loaded at the end, if any.
    """

    model: dict[int, str] = field(default_factory=dict)
    loss: dict[int, str] = field(default_factory=dict)
    end: tuple[str, str] = ("", "")
    best: int | None = None


class Scaled(nn.Module):
    """A loss with parameters of its own, over any other: they scale it."""

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.scale = nn.Parameter(torch.rand(3, generator=torch.Generator().manual_seed(_rank())))

    def forward(self, features: Any, labels: Any) -> torch.Tensor:
        """The sum of what the other loss returns, scaled."""
        loss = self.loss(features, labels)
        return (sum(loss.values()) if isinstance(loss, dict) else loss) * self.scale.exp().mean()


@dataclass(frozen=True)
class Variant:
    """
    How a scenario is trained.

    Args:
        title: In words.
        arguments: Further training arguments.
        change: Called with the run's trainer when it is built.
        calls: Of ``train()``.
        begin: Called with the trainer before each ``train()``.
        end: Called with the trainer after each.
    """

    title: str
    arguments: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Any], None] = lambda trainer: None
    calls: int = 1
    begin: Callable[[Any], None] = lambda trainer: None
    end: Callable[[Any], None] = lambda trainer: None


def _dropout(trainer: Any) -> None:
    for module in trainer.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1


def _adapter(trainer: Any) -> None:
    from peft import LoraConfig

    torch.manual_seed(_rank())  # the adapter, too, begins with other values on each process
    trainer.model.add_adapter(LoraConfig(r=4, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION"))


def _evaluate(trainer: Any) -> None:
    trainer.evaluate(names(16, first=1000))


def _evaluate_with_another(trainer: Any) -> None:
    arguments = replace(trainer.args, output_dir=f"{trainer.args.output_dir}/other")
    other = type(trainer)(model=trainer.model, args=arguments, loss=trainer.loss, eval_dataset=names(16, first=1000))
    other.evaluate()


def _load_best(trainer: Any) -> None:
    """The highest loss counts as the best: it is an early one, so that the last weights are others."""
    trainer.eval_dataset = trainer.preprocess_dataset(names(16, first=1000), dataset_name="eval")
    trainer.args.eval_strategy, trainer.args.eval_steps = IntervalStrategy.STEPS, 2
    trainer.args.load_best_model_at_end = trainer.args.greater_is_better = True
    trainer.args.metric_for_best_model = "eval_loss"


VARIANTS = {
    "plain": Variant("as it is"),
    "dropout": Variant("with dropout", change=_dropout),
    "accumulation": Variant("accumulates over 2 batches", {"gradient_accumulation_steps": 2}),
    "evaluated": Variant("evaluated before, between and after two train()", calls=2, begin=_evaluate, end=_evaluate),
    "another-trainer": Variant("another trainer evaluated the model before", begin=_evaluate_with_another),
    "bf16": Variant("bf16, evaluated before", {"bf16": True}, begin=_evaluate),
    "best": Variant("the best model is loaded", change=_load_best),
    "adapter": Variant("an adapter (PEFT)", change=_adapter),
}


def lacks(variant: str) -> str:
    """What the installed stack lacks for a variant; an empty string if nothing."""
    if variant == "adapter":
        try:
            check_peft_version(min_version=getattr(peft, "MIN_PEFT_VERSION", "0.5.0"))
        except ValueError as error:
            return str(error)
    return ""


def weigh(run: Run, variant: str) -> Record:
    """Train as told, with a loss that has parameters of its own; to be called in each rank."""
    how, record = VARIANTS[variant], Record()
    built: list[Any] = []

    def build(weighed: Run, arguments: dict[str, Any], dataset: Any) -> Any:
        trainer = (run.trainer or sentence_transformer_trainer)(weighed, {**arguments, **how.arguments}, dataset)
        trainer.loss = Scaled(trainer.model, trainer.loss)
        how.change(trainer)
        trainer.add_callback(_Weigh(trainer, record))
        trainer.train = _around(trainer, how)
        built.append(trainer)
        return trainer

    train(replace(run, trainer=build, calls=how.calls, gradients=True))
    (trainer,) = built
    record.end = _digests(trainer)
    record.best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    return record


def _around(trainer: Any, how: Variant) -> Callable[..., Any]:
    begin = trainer.train

    def call(*args: Any, **kwargs: Any) -> Any:
        how.begin(trainer)
        output = begin(*args, **kwargs)
        how.end(trainer)
        return output

    return call


class _Weigh(TrainerCallback):
    def __init__(self, trainer: Any, record: Record) -> None:
        self.trainer, self.record = trainer, record

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.record.model, self.record.loss = {}, {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.record.model[state.global_step], self.record.loss[state.global_step] = _digests(self.trainer)


def _digests(trainer: Any) -> tuple[str, str]:
    """Of the model's parameters, and of the loss's own."""
    model = {id(parameter) for parameter in trainer.model.parameters()}
    own = (parameter for parameter in trainer.loss.parameters() if id(parameter) not in model)
    return digest(trainer.model.parameters()), digest(own)


def digest(parameters: Iterable[torch.Tensor]) -> str:
    """Of their values, in order."""
    found = hashlib.sha256()
    for parameter in parameters:
        found.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def same_on_all_ranks(ranks: list[Record]) -> str:
    """What is wrong, in a few words; an empty string if the processes have the same weights after each step."""
    for what in ("model", "loss"):
        steps = [getattr(record, what) for record in ranks]
        if any(list(of_rank) != list(steps[0]) for of_rank in steps):
            return f"ranks took {', '.join(str(len(of_rank)) for of_rank in steps)} steps"
        apart = [step for step in steps[0] if len({of_rank[step] for of_rank in steps}) > 1]
        if apart:
            return f"{what}: ranks differ after {len(apart)} of {len(steps[0])} steps, first after step {apart[0]}"
    return "ranks differ after train()" if len({record.end for record in ranks}) > 1 else ""


def as_uninterrupted(whole: list[Record], after: list[Record]) -> str:
    """What is wrong, in a few words; an empty string if a resumed run has the weights of the uninterrupted one."""
    for rank, (expected, found) in enumerate(zip(whole, after)):
        for what in ("model", "loss"):
            one, other = getattr(expected, what), getattr(found, what)
            differ = [step for step, digest in other.items() if one.get(step) != digest]
            if differ or not other or max(other) != max(one):
                where = f"first after step {differ[0]}" if differ else f"steps end at {max(other, default=0)}"
                return f"{what}: {len(differ)} of {len(other)} steps differ on rank {rank}, {where}"
        if expected.end != found.end:
            return f"weights differ on rank {rank} after train()"
    return ""


def best_is_loaded(ranks: list[Record]) -> str:
    """What is wrong; an empty string if the weights at the end are those that were saved as the best."""
    for rank, record in enumerate(ranks):
        if record.best is not None and record.end != (record.model[record.best], record.loss[record.best]):
            parts = zip(("model", "loss"), record.end, (record.model[record.best], record.loss[record.best]))
            wrong = [what for what, end, best in parts if end != best]
            return f"{' and '.join(wrong)} on rank {rank} are not those of the best step {record.best}"
    return ""


def judge_weights(
    scenario: Scenario, variant: str, model: str, folder: Path, cut: int = 6, limit: float = 120.0
) -> Cell:
    """
    Run a scenario and judge it by its weights.

    Args:
        scenario: What to run; its rows, batches and launch.
        variant: How it is trained, of :data:`VARIANTS`.
        model: The folder of the model to train.
        folder: Where the runs write their checkpoints.
        cut: The optimizer step after which a checkpoint is resumed from.
        limit: Seconds for each of the two runs.
    """
    lacking = scenario.needs() or lacks(variant)
    if lacking:
        return Cell(NOT_APPLICABLE, lacking)
    whole = scenario.run(str(folder / "whole"), model)
    arguments = {"save_strategy": "steps", "save_steps": 2, **whole.arguments}
    whole = replace(whole, arguments=arguments)
    resumed = replace(whole, folder=str(folder / "resumed"), resume=f"{whole.folder}/checkpoint-{cut}")
    try:
        before = run_ranks(scenario.world_size, weigh, whole, variant, timeout=limit)
        wrong = same_on_all_ranks(before) or best_is_loaded(before)
        if not wrong and VARIANTS[variant].calls == 1:
            after = run_ranks(scenario.world_size, weigh, resumed, variant, timeout=limit)
            wrong = same_on_all_ranks(after) or as_uninterrupted(before, after)
    except RankFailed as error:
        state = HANGS if isinstance(error, RanksHang) else CRASHED
        return Cell(state, str(error).strip().splitlines()[-1])
    return Cell(WRONG, wrong) if wrong else Cell(RIGHT)
