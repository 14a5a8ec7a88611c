"""One run of an arm, in each of the processes of a group: real trainers, and a record of the rows of each step."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import distributed
from transformers import TrainerCallback
from transformers.utils import logging

import sentence_transformers
from benchmarks.quality.arms import ARMS, BATCH, EPOCHS, LENGTH, NEGATIVES, PER_EPOCH, ROWS, Arm, Stack
from benchmarks.quality.task import hard_negatives, retrieval, task_of
from conformance.runs import KIND_OF_MODELS, MINILM, FixedShapes
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.planned import PlannedNoDuplicatesBatchSampler
from sentence_transformers.planned.duplicates import group_by_value
from sentence_transformers.planned.false_negatives import count_false_negatives

Record = dict[str, Any]
PLANNED = partial(PlannedNoDuplicatesBatchSampler, max_skipped=0.05)
"""By default it refuses to train where more than 1 % of the rows find no place."""


class ShortShapes(FixedShapes):
    """Tensors of one shape, no longer than the longest name."""

    def _fixed(self, tokens: torch.Tensor, length: int = LENGTH) -> torch.Tensor:
        return super()._fixed(tokens, length)


class Log(TrainerCallback):
    """What this process has trained on, through all trainers of a run; it preempts the run."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.steps: list[tuple[int, list[int]]] = []  # (epoch, rows)
        self.epoch = -1
        self.stops = 0
        self.stopped = False

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """A resumed trainer goes on in the epoch under way."""
        self.epoch += not self.stopped
        self.stopped = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Preempt once in each epoch, after half of its steps."""
        done = sum(epoch == self.epoch for epoch, _ in self.steps)
        if self.arm.preempted and self.stops == self.epoch and done == PER_EPOCH // 2:
            self.stops += 1
            self.stopped = control.should_save = control.should_training_stop = True


class Trainer(SentenceTransformerTrainer):
    """Notes the rows of each step."""

    log_of_rows: Log

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take the numbers of the rows from the label, which the loss does not read."""
        self.log_of_rows.steps.append((self.log_of_rows.epoch, inputs["label"].tolist()))
        return super().training_step(model, inputs, *args, **kwargs)


def loaded() -> SentenceTransformer:
    """MiniLM, its word embeddings fixed."""
    model = SentenceTransformer(str(MINILM), device="cpu")
    model[0].auto_model.embeddings.word_embeddings.requires_grad_(False)
    return model


@lru_cache(maxsize=1)
def mined(seed: int) -> dict[str, list[str]]:
    """Columns of the hard negatives of a task, by the untrained model."""
    columns = zip(*hard_negatives(loaded(), task_of(seed)))
    return {f"negative_{number}": list(column) for number, column in zip(range(1, NEGATIVES + 1), columns)}


def columns_of(arm: Arm, seed: int) -> dict[str, list[str]]:
    """The texts of the rows."""
    anchors, positives = zip(*task_of(seed).rows)
    columns = {"anchor": list(anchors), "positive": list(positives)}
    return columns | mined(seed) if arm.negatives else columns


def trainer_of(arm: Arm, seed: int, columns: dict[str, list[str]], folder: Path, log: Log) -> Trainer:
    """A trainer as a script would make it."""
    model = loaded()
    sampler: Any = PLANNED if arm.sampler == "planned" else arm.sampler
    trainer = Trainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            str(folder),
            per_device_train_batch_size=BATCH,
            num_train_epochs=EPOCHS,
            learning_rate=1e-4,
            warmup_steps=0.1,
            batch_sampler=sampler,
            accelerator_config={"dispatch_batches": True} if arm.dispatched else None,
            save_strategy="no",
            logging_strategy="no",
            seed=seed,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({**columns, "label": list(range(ROWS))}),
        loss=MultipleNegativesRankingLoss(model, gather_across_devices=arm.gathering),
        callbacks=[log],
    )
    if arm.dispatched:
        trainer.data_collator = ShortShapes(trainer.data_collator)
    trainer.log_of_rows = log
    return trainer


def train(arm: Arm, seed: int, folder: Path) -> Record:
    """Train an arm with a seed, through all preemptions; the same record in each process."""
    columns = columns_of(arm, seed)
    log = Log(arm)
    began = time.perf_counter(), time.process_time()
    while True:
        trainer = trainer_of(arm, seed, columns, folder, log)
        trainer.train(resume_from_checkpoint=log.stops > 0)
        if not log.stopped:
            break
        release(trainer)
    seconds, worked = time.perf_counter() - began[0], time.process_time() - began[1]
    figures = retrieval(trainer.model, task_of(seed))
    release(trainer)
    record = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "worked": round(worked, 1),
        "steps": len(log.steps),
        **figures,
    }
    return record | seen(arm, columns, log)


def release(trainer: Trainer) -> None:
    """Let go of the model and of DDP before the next trainer is made."""
    trainer.accelerator.free_memory()
    gc.collect()
    distributed.barrier()


def seen(arm: Arm, columns: dict[str, list[str]], log: Log) -> Record:
    """Shares, of the rows of an epoch: seen twice or more, never; of the rows trained on: with a false negative."""
    ranks: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(ranks, log.steps)
    epochs: list[Counter[int]] = [Counter() for _ in range(EPOCHS)]
    orders: list[list[Any]] = [[] for _ in range(EPOCHS)]
    for step in zip(*ranks):
        epoch = step[0][0]
        if epoch < EPOCHS:
            epochs[epoch].update(row for _, rows in step for row in rows)
            orders[epoch].append([sorted(rows) for _, rows in step])
    batches = [rows for steps in ranks for _, rows in steps]
    if arm.gathering:
        batches = [[row for _, rows in step for row in rows] for step in zip(*ranks)]
    _, identities = np.unique(np.array(list(zip(*columns.values()))), return_inverse=True)
    false = count_false_negatives(group_by_value(identities.reshape(ROWS, -1), 2), batches).rows
    return {
        "orders": len({json.dumps(order) for order in orders}),
        "twice": sum(count > 1 for epoch in epochs for count in epoch.values()) / (EPOCHS * ROWS),
        "never": 1 - sum(map(len, epochs)) / (EPOCHS * ROWS),
        "false negatives": false / sum(map(len, batches)),
    }


def run_all(stack: Stack, todo: list[tuple[str, int]], results: Path, scratch: Path) -> None:
    """In each process of a group: make the runs, one after the other; the first process appends them to `results`."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    disable_progress_bars()
    KIND_OF_MODELS._create_model_card = lambda *args, **kwargs: None
    SentenceTransformerTrainingArguments(str(scratch), use_cpu=True).device  # starts the process group  # noqa: B018
    first = distributed.get_rank() == 0
    package = Path(sentence_transformers.__file__).resolve()
    if ("pristine" in package.parts) != (stack == "release"):
        raise RuntimeError(f"{package} is not the {stack}; `make setup` makes both.")
    arms = {arm.name: arm for arm in ARMS}
    for name, seed in todo:
        arm, folder = arms[name], scratch / name
        if arm.trained:
            record = train(arm, seed, folder)
        else:
            record = {"seed": seed, "steps": 0, **retrieval(loaded(), task_of(seed))}
        if first:
            shutil.rmtree(folder, ignore_errors=True)
            line = json.dumps({"arm": name, **record})
            with results.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            print(line, flush=True)
        distributed.barrier()
