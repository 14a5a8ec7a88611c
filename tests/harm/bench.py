"""What a case of the no-harm table is given: a small model, data, a trainer that is watched, and what was seen.

A model of static embeddings and real losses: a run takes about 50 ms and is exactly repeatable on one machine.
Nothing here is imported from the fork, so that the same cases run on the pristine release.
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import torch
from datasets import Dataset
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

ROWS, BATCH_SIZE, EPOCHS = 24, 4, 2
TIMES = ("_runtime", "_per_second")
"""How the names of logged values end that are measured with a clock."""
COLLECTIVES = (
    *("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all", "barrier", "broadcast"),
    *("broadcast_object_list", "gather", "gather_object", "reduce", "scatter", "scatter_object_list"),
)


@dataclass
class Seen:
    """
    What one process saw of a case.

    Args:
        rows: The rows of each batch that was trained on, in order.
        logged: The records that callbacks were given to log, without times.
        events: How often each event of the callbacks came.
        warnings: What was warned of, through ``logging`` or ``warnings``.
        files: What lies in the output folder.
        collectives: How often each collective of ``torch.distributed`` was called.
        reads: How often rows or columns were read from datasets of this process.
        notes: What the case itself noted.
        error: The exception that ended the case.
    """

    rows: list[list[int]] = field(default_factory=list)
    logged: list[dict[str, Any]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    collectives: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    notes: list[Any] = field(default_factory=list)
    error: str = ""


@cache
def tokenizer() -> Tokenizer:
    """Knows the words of :func:`pairs`."""
    words = ["[UNK]", "[PAD]", "same", "none", *(f"{kind}{row}" for kind in "ap" for row in range(200))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def pairs(rows: int = ROWS, first: int = 0) -> Dataset:
    """Pairs of words that no other row has, numbered from ``first``; the number is the label."""
    numbers = range(first, first + rows)
    return Dataset.from_dict(
        {
            "anchor": [f"a{number}" for number in numbers],
            "positive": [f"p{number}" for number in numbers],
            "label": list(numbers),
        }
    )


class Bench:
    """
    What a case works with.

    Args:
        folder: Of the case; both ranks have the same one.
        shared: Of all cases on the release and on the fork.
        rank: Of this process.
        world_size: The number of processes.
    """

    def __init__(self, folder: Path, shared: Path, rank: int = 0, world_size: int = 1) -> None:
        self.folder, self.shared, self.rank, self.world_size = folder, shared, rank, world_size
        self.output = folder / "output"
        self.seen = Seen()

    def model(self) -> SentenceTransformer:
        """A new model, always with the same weights."""
        torch.manual_seed(0)
        return SentenceTransformer(modules=[StaticEmbedding(tokenizer(), embedding_dim=8)], device="cpu")

    def arguments(self, cls: Any = SentenceTransformerTrainingArguments, **changes: Any) -> Any:
        """Training arguments of a short run that logs each step."""
        settings = {
            "output_dir": str(self.output),
            "per_device_train_batch_size": BATCH_SIZE,
            "per_device_eval_batch_size": BATCH_SIZE,
            "num_train_epochs": EPOCHS,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
        }
        return cls(**{**settings, **changes})

    def trainer(
        self,
        cls: Any = None,
        data: Any = None,
        args: Any = None,
        more: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Any:
        """
        A trainer that is watched.

        Args:
            cls: Its class; by default the SentenceTransformerTrainer.
            data: What it trains on; by default the pairs.
            args: Training arguments.
            more: Other arguments of the trainer.
            **changes: Of the training arguments.
        """
        model = self.model()
        settings: dict[str, Any] = {
            "model": model,
            "args": args or self.arguments(**changes),
            "train_dataset": pairs() if data is None else data,
            "loss": MultipleNegativesRankingLoss(model),
            **(more or {}),
        }
        return self.watched((cls or SentenceTransformerTrainer)(**settings))

    def watched(self, trainer: Any) -> Any:
        """Have the trainer's steps, logs and events noted."""
        step = trainer.training_step

        def watched_step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.saw(inputs)
            return step(model, inputs, *args, **kwargs)

        trainer.training_step = watched_step
        trainer.add_callback(_Watch(self.seen))
        return trainer

    def saw(self, batch: Any) -> None:
        """Note the rows of a batch."""
        self.seen.rows.append([int(row) for row in batch["label"]])

    def note(self, value: Any) -> None:
        """Keep something else to compare; it goes through JSON."""
        self.seen.notes.append(value)

    def stored(self, name: str, write: Callable[[Path], Any]) -> Path:
        """What rank 0 writes and the others wait for, without a collective; ``write`` is given the path."""
        path, ready = self.folder / name, self.folder / f"{name}-ready"
        if self.rank == 0:
            write(path)
            ready.touch()
        while not ready.exists():
            time.sleep(0.01)
        return path

    def train(self, **settings: Any) -> Any:
        """Make a trainer, and let it train."""
        trainer = self.trainer(**settings)
        trainer.train()
        return trainer

    def resume(self, cut: int, **settings: Any) -> None:
        """Train with a checkpoint after step ``cut``, then go on from that with a new trainer."""
        first = self.trainer(**settings)
        first.add_callback(_SavesAt(cut))
        first.train()
        self.trainer(**settings).train(resume_from_checkpoint=str(self.output / f"checkpoint-{cut}"))


class _Watch(TrainerCallback):
    """Notes each event, and what is logged."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            object.__getattribute__(self, "seen").events[name] += 1
        return object.__getattribute__(self, name)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.seen.logged.append({name: value for name, value in (logs or {}).items() if not name.endswith(TIMES)})


class _SavesAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save |= state.global_step == self.step


@contextmanager
def watching(bench: Bench) -> Iterator[None]:
    """Note what happens outside of the trainer: warnings, collectives, reads, and the files at the end."""
    handler = _Handler(bench.seen.warnings)
    loggers = [logging.getLogger(), *map(logging.getLogger, ("transformers", "datasets"))]
    for logger in loggers:
        logger.addHandler(handler)
    transformers_logging.warning_once.cache_clear()
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings(record=True) as caught, _counted(bench.seen):
            warnings.simplefilter("always")
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        bench.seen.warnings += [f"{warning.category.__name__}: {warning.message}" for warning in caught]
        bench.seen.warnings[:] = [_without_places(text, bench.folder) for text in bench.seen.warnings]
        bench.seen.error = _without_places(bench.seen.error, bench.folder)
        if bench.rank == 0:  # which may delete what another rank looks at
            bench.seen.files = sorted(str(path.relative_to(bench.output)) for path in bench.output.rglob("*"))


class _Handler(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not message.startswith(
            "mtime may not be reliable"
        ):  # transformers, when it saves twice within a clock's tick
            self.messages.append(f"{record.name}: {message}")


@contextmanager
def _counted(seen: Seen) -> Iterator[None]:
    """Count collectives, and reads of datasets."""

    def counting(function: Callable[..., Any], counter: Counter[str], name: str) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            counter[name] += 1
            return function(*args, **kwargs)

        return counted

    places: list[tuple[Any, str, Counter[str]]] = [
        *((torch.distributed, name, seen.collectives) for name in COLLECTIVES),
        (datasets.Dataset, "_getitem", seen.reads),
        (datasets.Dataset, "__iter__", seen.reads),
        (datasets.IterableDataset, "__iter__", seen.reads),
    ]
    patches = [
        patch.object(owner, name, counting(getattr(owner, name), counter, name)) for owner, name, counter in places
    ]
    patches.append(patch.object(SentenceTransformer, "_create_model_card", _write_card))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def _write_card(model: Any, path: str, *args: Any, **kwargs: Any) -> None:
    """In place of the model card, whose template is compiled each time."""
    Path(path, "README.md").touch()


def _without_places(text: str, folder: Path) -> str:
    """Without what differs from run to run: the folder, addresses of objects, lines of files."""
    return re.sub(r"0x[0-9a-f]+|\S+\.py:\d+", "…", text.replace(str(folder), "…"))
