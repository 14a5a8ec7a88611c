"""Trainers as a user would have them, where those of ``runs`` allow for what the released stack cannot run."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch

from conformance import runs
from conformance.runs import Run

try:
    from sentence_transformers.planned import PlannedNoDuplicatesBatchSampler
except ImportError:
    PlannedNoDuplicatesBatchSampler = None
planned: Any = PlannedNoDuplicatesBatchSampler
"""The class of the planned batches' sampler; None where that package is not."""

FITS = 8
"""Rows of a batch that have room in the memory of :func:`small_memory_trainer`."""


def as_collated_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Dispatches what the collator makes: strings beside tensors, and texts as long as they are."""
    return runs.sentence_transformer_trainer(replace(run, accelerator={}), arguments, dataset)


def iterable_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Streams the rows through a shuffle buffer."""
    steps = len(dataset) // (run.batch_size * int(os.environ.get("WORLD_SIZE", "1")))
    stream = dataset.to_iterable_dataset().shuffle(seed=7, buffer_size=32)
    arguments = {**arguments, "max_steps": run.epochs * steps, "batch_sampler": "batch_sampler"}
    return as_collated_trainer(run, arguments, stream)


def frequent_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Has each anchor in four rows."""
    anchors = dataset["anchor"][: len(dataset) // 4]
    repeated = dataset.remove_columns("anchor").add_column("anchor", list(anchors) * 4)
    return runs.sentence_transformer_trainer(run, arguments, repeated.select_columns(["anchor", "positive", "label"]))


def stateful_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Reads with torchdata's loader, which can tell where it is."""
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    trainer.accelerator.dataloader_config.use_stateful_dataloader = True
    return trainer


def small_memory_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Runs out of memory for batches of more than ``FITS`` rows."""
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    loss = trainer.compute_loss

    def compute_loss(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if len(inputs["label"]) > FITS:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    return trainer


def default_cross_encoder_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """A cross-encoder with the arguments as they are by default."""
    torch.manual_seed(3)  # for the layer that the checkpoint lacks
    model = runs.CrossEncoder(run.model, num_labels=1, device="cpu")
    return runs.CrossEncoderTrainer(
        model=model,
        args=runs.CrossEncoderTrainingArguments(**arguments),
        train_dataset=dataset,
        loss=runs.BinaryCrossEntropyLoss(model),
    )
