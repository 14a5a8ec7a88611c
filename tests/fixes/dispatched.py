"""Runs whose batches are what real models make of text: strings and tensors of unequal length, streams, evaluations.

As in ``conformance/runs.py``, nothing here is imported from the fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch.utils.data import BatchSampler
from transformers import AutoTokenizer

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, continued, train
from conformance.trainers import as_collated_trainer
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

Record = list[dict[str, Any]]


def _described(value: Any) -> Any:
    """What a batch holds: tensors by shape and type, the rest as it is."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape)
    if isinstance(value, Mapping):
        return {name: _described(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    return value


def recorded(run: Run) -> Record:
    """Train as told; of each step, the batch as this rank got it, its rows, and its loss. At last, the evaluations."""
    record: Record = []

    def build(*arguments: Any) -> Any:
        trainer = (run.trainer or as_collated_trainer)(*arguments)
        training_step = trainer.training_step

        def step(model: Any, inputs: dict[str, Any], *rest: Any, **kwargs: Any) -> torch.Tensor:
            described = _described(inputs)
            loss = training_step(model, inputs, *rest, **kwargs)
            record.append({"batch": described, "type": type(inputs).__name__, "loss": float(loss)})
            return loss

        trainer.training_step = step
        record.append(trainer)
        return trainer

    rows = train(replace(run, trainer=build, gradients=True))
    trainer, *steps = record
    evaluations = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    return [{**step, "rows": taken} for step, taken in zip(steps, rows)] + [{"evaluations": evaluations}]


def attempt(world_size: int, run: Run, function: Any = recorded) -> list[Any]:
    """What each rank returns; or, if one fails, what it says, so that a test fails by its assertion."""
    try:
        return run_ranks(world_size, function, run)
    except RankFailed as failure:
        return [str(failure)]


def interrupted(world_size: int, run: Run, stop_after: int) -> list[Any]:
    """The rows of a run that is stopped after some optimizer steps, and of the one that goes on from there, joined."""
    try:
        before = run_ranks(world_size, train, replace(run, stop_after=stop_after))
        after = run_ranks(world_size, train, continued(replace(run, stop_after=stop_after)))
    except RankFailed as failure:
        return [str(failure)]
    return [one + other for one, other in zip(before, after)]


def losses_trainer(run: Run, arguments: dict[str, Any], dataset: DatasetDict) -> SentenceTransformerTrainer:
    """Two datasets of different columns, each with a loss and a prompt of its own."""
    model = SentenceTransformer(run.model, device="cpu")
    first, second = dataset.values()
    second = second.rename_columns({"anchor": "question", "positive": "answer"})
    second = second.add_column("negative", list(reversed(second["answer"])))
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments, prompts={"one": "name: ", "other": "its name: "}),
        train_dataset=DatasetDict(one=first, other=second),
        loss={"one": CoSENTLoss(model), "other": MultipleNegativesRankingLoss(model)},
    )


def evaluating_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SentenceTransformerTrainer:
    """Evaluates every few steps, on rows that two processes share equally."""
    trainer = runs.evaluating_trainer(run, arguments, dataset)
    trainer.eval_dataset = runs.names(24, first=1000)
    return trainer


def evaluating_first_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SentenceTransformerTrainer:
    """Evaluates before the first step, on rows that two processes cannot share equally."""
    trainer = evaluating_trainer(run, {**arguments, "eval_on_start": True, "max_steps": 1}, dataset)
    trainer.eval_dataset = runs.names(20, first=1000)
    return trainer


def streaming_evaluation_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SentenceTransformerTrainer:
    """The rows to evaluate on are a stream."""
    trainer = evaluating_trainer(run, arguments, dataset)
    trainer.eval_dataset = trainer.eval_dataset.to_iterable_dataset()
    return trainer


class UnequalBatches(BatchSampler):
    """Batches of one to five rows, in the dataset's order; it has no batch size to promise."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        self.rows, self.drop_last = len(dataset), drop_last

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for index in range(len(self)):
            yield list(range(start, start := start + index % 5 + 1))

    def __len__(self) -> int:
        return self.rows // 15 * 5


def cross_encoder_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """A cross-encoder whose new layer is the same on each rank."""
    torch.manual_seed(3)
    return runs.cross_encoder_trainer(run, arguments, dataset)


def static_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SentenceTransformerTrainer:
    """Of a static embedding's tensors, one is as long as all of a batch's texts together."""
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=16)], device="cpu")
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments),
        train_dataset=dataset,
        loss=MultipleNegativesRankingLoss(model),
    )


def _streamed(dataset: Dataset) -> Any:
    """One file, shuffled by a buffer."""
    return dataset.to_iterable_dataset().shuffle(seed=7, buffer_size=16)


def streaming_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> SentenceTransformerTrainer:
    """The rows are a stream."""
    return as_collated_trainer(run, {**arguments, "batch_sampler": "batch_sampler"}, _streamed(dataset))


def taken_stream_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> SentenceTransformerTrainer:
    """The stream leaves rows out at both ends."""
    stream = _streamed(dataset).skip(5).take(len(dataset) - 10)
    return as_collated_trainer(run, {**arguments, "batch_sampler": "batch_sampler"}, stream)


def files_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> SentenceTransformerTrainer:
    """The stream comes in four files of unequal length."""
    half, quarter, rest = (len(dataset) // share for share in (2, 4, 8))
    starts = (0, half, half + quarter, len(dataset) - rest)
    parts = [dataset.select(range(start, start + size)) for start, size in zip(starts, (half, quarter, rest, rest))]
    stream = concatenate_datasets([part.to_iterable_dataset() for part in parts]).shuffle(seed=7, buffer_size=16)
    return as_collated_trainer(run, {**arguments, "batch_sampler": "batch_sampler"}, stream)


def streaming_static_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> SentenceTransformerTrainer:
    """A static embedding on a stream."""
    return static_trainer(run, {**arguments, "batch_sampler": "batch_sampler"}, _streamed(dataset))


def streaming_cross_encoder_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A cross-encoder on a stream."""
    return cross_encoder_trainer(run, {**arguments, "batch_sampler": "batch_sampler"}, _streamed(dataset))
