"""How far a run has come in its order, by the trainer's own state alone.

The place follows from ``state.epoch``, which the trainer sets at each optimizer step to the epochs done, and from the
number of batches in an epoch. So it is that of the checkpoint, whoever saves one and when: at a step, between the
batches of one, or after training.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from transformers import TrainerState, TrainingArguments

from sentence_transformers.order.fingerprint import OrderDigest
from sentence_transformers.order.manifest import OrderManifest, manifest_of
from sentence_transformers.order.tracker import OrderTracker


class OrderProgress:
    """
    The order of one ``train()``.

    Args:
        dataloader: The training dataloader.
        args (TrainingArguments): The trainer's.
        state (TrainerState): The trainer's.
        hash_rows (int, optional): The number of rows of each dataset whose values count; None for all.
    """

    def __init__(self, dataloader: Any, args: TrainingArguments, state: TrainerState, hash_rows: int | None) -> None:
        self._state = state
        self.tracker = OrderTracker(dataloader)
        self.options = manifest_of(dataloader, self.tracker, args, state, hash_rows)

    def facts(self) -> dict[str, Any]:
        """What must be the same on all processes for them to share one plan, as far as they read by it."""
        options = self.options
        facts: dict[str, Any] = {"batches in an epoch": options.batches_per_epoch, "batch size": options.batch_size}
        if not self.tracker.dispatched:
            facts |= {"seed": options.seed, "batch sampler": options.batch_sampler}
            for data in options.datasets:
                facts |= {f"rows of {data.name}": data.rows, f"values of {data.name}": data.hash}
        return facts

    def epoch(self) -> int:
        """The epoch that the last step was in, counted from 0."""
        return math.ceil(self._state.epoch or 0.0) - 1

    def _batches(self) -> int:
        """The batches that each process has taken of that epoch."""
        return round(((self._state.epoch or 0.0) - self.epoch()) * self.options.batches_per_epoch)

    def taken(self) -> OrderDigest | None:
        """The rows taken of the epoch that the last step was in; None if they are not seen."""
        return self.tracker.take(self._batches())

    def epoch_is_done(self) -> bool:
        """Whether all batches of the epoch that the last step was in are taken."""
        return self._batches() == self.options.batches_per_epoch

    def whole_epoch(self) -> tuple[str, int]:
        """The digest of the epoch that the last step was in, and its rows; none if it is not seen to its end."""
        current = self.tracker.current
        if current is None or not (self.epoch_is_done() or current.exhausted):
            return "", 0
        digest = current.take(self.options.batches_per_epoch * self.tracker.batches_per_step)
        return digest.hexdigest(), digest.rows

    def here(self) -> OrderManifest:
        """The manifest at the place that the trainer's state names, with the rows taken of the epoch under way."""
        epoch = self._state.epoch or 0.0
        digest = self.taken() if epoch % 1 else None
        rows, seen = (0, None) if digest is None else (digest.rows, digest.hexdigest())
        return replace(self.options, step=self._state.global_step, epoch=epoch, rows=rows, digest=seen)

    def begun_at(self, rows: int) -> OrderManifest:
        """
        After the first step: the manifest at the place where the run went on, one step ago.

        Args:
            rows (int): The number of rows to digest, of the beginning of the epoch.
        """
        options = self.options
        start = (self._batches() - 1) // options.accumulation * options.accumulation
        epoch = self.epoch() + start / max(options.batches_per_epoch, 1)
        now = replace(options, step=self._state.global_step - 1, epoch=epoch)
        if self.tracker.current is None:
            return now
        digest = self.tracker.current.first_rows(rows)  # before others are taken
        taken = self.tracker.take(start)
        return replace(now, rows=0 if taken is None else taken.rows, digest=digest)
