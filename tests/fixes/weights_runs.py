"""What the tests of weights train on each rank: short runs, many in one process, and what is left of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset, DatasetDict
from sentence_transformers.sentence_transformer import losses
from torch import nn
from transformers import Trainer

from conformance.runs import names
from conformance.weights import digest
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

CLASSES, WIDTH = 3, 16
COLLECTIVES = ("all_reduce", "broadcast", "all_gather_object", "all_gather", "broadcast_object_list")


def softmax(model: SentenceTransformer) -> nn.Module:
    """A classifier of the loss's own."""
    return losses.SoftmaxLoss(model, WIDTH, CLASSES)


def projection(model: SentenceTransformer) -> nn.Module:
    """Projects to the teacher's width."""
    return losses.MSELoss(model, projection_dim=4)


def decoder(model: SentenceTransformer) -> nn.Module:
    """A decoder of its own, and the model as ``encoder``."""
    return losses.DenoisingAutoEncoderLoss(
        model, model.transformers_model.config._name_or_path, tie_encoder_decoder=False
    )


def tied_decoder(model: SentenceTransformer) -> nn.Module:
    """A decoder that has parameters in common with the model."""
    return losses.DenoisingAutoEncoderLoss(model, tie_encoder_decoder=True)


def tension(model: SentenceTransformer) -> nn.Module:
    """A second model that is trained, and a temperature."""
    return losses.ContrastiveTensionLossInBatchNegatives(model)


def nested(model: SentenceTransformer) -> nn.Module:
    """Inside Matryoshka and adaptive layers."""
    return losses.Matryoshka2dLoss(model, softmax(model), [WIDTH])


def several(model: SentenceTransformer) -> dict[str, nn.Module]:
    """A dictionary of losses, one of them of two datasets."""
    shared = softmax(model)
    return {"a": softmax(model), "b": shared, "c": shared}


def guided(model: SentenceTransformer) -> nn.Module:
    """A guide, whose parameters no one froze."""
    return losses.GISTEmbedLoss(
        model, SentenceTransformer(model.transformers_model.config._name_or_path, device="cpu")
    )


class OneRank(losses.SoftmaxLoss):
    """Has a head that only rank 1 uses, one that no rank uses, and one that is frozen."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__(model, WIDTH, CLASSES)
        self.one, self.none = nn.Linear(CLASSES, CLASSES), nn.Linear(CLASSES, CLASSES)
        self.frozen = nn.Linear(CLASSES, CLASSES).requires_grad_(False)

    def forward(self, features: Any, labels: Any) -> torch.Tensor:
        """The classifier's, of one rank through another head."""
        _, output = super().forward(features, None)
        return self.loss_fct(self.one(output) if os.environ.get("RANK") == "1" else output, labels)


def in_ddp(model: SentenceTransformer) -> nn.Module:
    """Wrapped by the user."""
    return nn.parallel.DistributedDataParallel(softmax(model), find_unused_parameters=True)


def plain(model: SentenceTransformer) -> nn.Module:
    """Nothing of its own."""
    return losses.MultipleNegativesRankingLoss(model)


def rows_for(loss: Any) -> Any:
    """The columns that a loss takes."""
    rows = names(32)
    if isinstance(loss, dict):
        return DatasetDict({name: rows_for(loss[name]) for name in loss})
    if isinstance(loss, losses.ContrastiveTensionLossInBatchNegatives):
        return rows.select_columns(["anchor"])
    if isinstance(loss, losses.DenoisingAutoEncoderLoss):
        return rows.select_columns(["anchor", "positive"])
    if isinstance(loss, losses.MSELoss):
        return Dataset.from_dict({"anchor": rows["anchor"], "label": [[float(row)] * 4 for row in range(32)]})
    return Dataset.from_dict({**rows.to_dict(), "label": [row % CLASSES for row in range(32)]})


class AsReleased(SentenceTransformerTrainer):
    """Wraps and steps as transformers does, as the release's trainer."""

    _wrap_model, training_step = Trainer._wrap_model, Trainer.training_step


def trainer_of(
    path: str, folder: str, make_loss: Any, seed: int, kind: Any = SentenceTransformerTrainer, **arguments: Any
) -> SentenceTransformerTrainer:
    """A trainer whose loss begins with the values that ``seed`` gives."""
    settings = {"save_strategy": "no", "num_train_epochs": 1, "per_device_train_batch_size": 4, **arguments}
    args = SentenceTransformerTrainingArguments(
        output_dir=folder, use_cpu=True, report_to="none", disable_tqdm=True, learning_rate=0.01, **settings
    )
    model = SentenceTransformer(path, device="cpu")
    model.model_card_data.generate_widget_examples = False
    torch.manual_seed(seed)
    loss = make_loss(model)
    return kind(model=model, args=args, train_dataset=rows_for(loss), loss=loss)


def weights(trainer: Any) -> tuple[str, str]:
    """Digests of the model's parameters, and of those that the loss trains of its own."""
    model = {id(parameter) for parameter in trainer.model.parameters()}
    modules = trainer.loss.values() if isinstance(trainer.loss, dict) else [trainer.loss]
    own = [p for loss in modules for p in loss.parameters() if id(p) not in model and p.requires_grad]
    return digest(trainer.model.parameters()), digest(own)


def train_each(path: str, folder: str, makers: dict[str, Any], **arguments: Any) -> dict[str, tuple[str, str]]:
    """Train with each loss, which begins with other values on each rank; the weights after."""
    after = {}
    for name, make_loss in makers.items():
        trainer = trainer_of(path, folder, make_loss, 10 + int(os.environ.get("RANK", "0")), **arguments)
        trainer.train()
        after[name] = weights(trainer)
    return after


def collectives_of(path: str, folder: str, make_loss: Any, kind: Any) -> tuple[list[str], tuple[str, str], list[str]]:
    """The collectives of ``train()``, the weights after it, and the files of its checkpoint."""
    trainer = trainer_of(path, folder, make_loss, 3, kind, save_strategy="steps", save_steps=2)
    called, kept = [], {name: getattr(dist, name) for name in COLLECTIVES}
    for name in COLLECTIVES:
        setattr(dist, name, _counted(name, kept[name], called))
    try:
        trainer.train()
    finally:
        for name in COLLECTIVES:
            setattr(dist, name, kept[name])
    return called, weights(trainer), sorted(file.name for file in Path(folder, "checkpoint-2").iterdir())


def trained_with_model_init(path: str, folder: str) -> list[str]:
    """Digests of the model after each of two trainings."""
    args = SentenceTransformerTrainingArguments(
        output_dir=folder, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", num_train_epochs=1
    )
    trainer = SentenceTransformerTrainer(
        model_init=lambda: SentenceTransformer(path, device="cpu"), args=args, train_dataset=names(32), loss=plain
    )
    after = []
    for _ in range(2):
        trainer.train()
        after.append(digest(trainer.model.parameters()))
    return after


def resumed_with(path: str, folder: str, wrong: str) -> tuple[int, str]:
    """The steps of a resumed run, and its error."""
    trainer = trainer_of(path, folder, softmax, 1, save_strategy="steps", save_steps=2)
    trainer.train()
    dist.barrier()
    if trainer.is_world_process_zero() and wrong == "damaged":
        Path(folder, "checkpoint-2", "loss.safetensors").write_bytes(b"torn")
    dist.barrier()
    make_loss = softmax if wrong == "damaged" else lambda model: losses.SoftmaxLoss(model, WIDTH, CLASSES + 1)
    trainer = trainer_of(path, folder, make_loss, 1, save_strategy="no")
    try:
        trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-2")
    except ValueError as error:
        return trainer.state.global_step, str(error)
    return trainer.state.global_step, ""


def _counted(name: str, function: Any, called: list[str]) -> Any:
    def count(*args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return function(*args, **kwargs)

    return count
