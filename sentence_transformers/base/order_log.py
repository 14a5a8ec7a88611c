"""A trainer that logs a fingerprint of each epoch's order.

Guarantee, within :func:`log_order`: at the end of each epoch, ``epoch_order`` is logged where other metrics go. It is
a digest of the rows that the epoch's steps took, over all processes, in the order planned. So it is the same in every
launch mode where the plan is the same, and two epochs, or two runs, have the same one exactly if they had the same
rows in the same order; how these were cut into batches does not count.

An epoch that ends early (``max_steps``), rows that are streamed, and batches that are no integers have no fingerprint;
then none is logged. With ``logging_strategy="no"`` none is, either. When batches are dispatched, the main process
alone sees the order.

Cost: see :mod:`~sentence_transformers.base.watching`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from sentence_transformers.base.fingerprint import SHORT, OrderDigest
from sentence_transformers.base.position import Position
from sentence_transformers.base.watching import watch_order


@contextmanager
def log_order(log: OrderLog) -> Iterator[None]:
    """
    Within this context, the trainer of ``log`` logs a fingerprint of each epoch's order.

    Args:
        log (OrderLog): The callback that does it; it is gone when the context ends.
    """
    log.trainer.add_callback(log)
    try:
        with log.opened:
            yield
    finally:
        log.trainer.remove_callback(log)


class OrderLog(TrainerCallback):
    """
    Watches the training dataloader of a trainer, counts its batches, and logs the order of each epoch.

    Args:
        trainer (:class:`transformers.Trainer`): A trainer about to enter its training loop.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.opened = ExitStack()
        self.orders: list[str] = []
        """The digests of the epochs so far; empty where there was none."""
        self.epoch = self.step = self.steps = 0
        """The epoch under way, the batches taken of it, and those of a whole one."""
        self._in_epoch = False
        # So many of the trainer's batches are made of one of the loader's
        self._sequence_parallel = trainer.get_sp_size() if hasattr(trainer, "get_sp_size") else 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch."""
        self.loader = kwargs["train_dataloader"]
        if has_length(self.loader):
            self.steps = len(self.loader) * self._sequence_parallel
            updates = max(ceil(self.steps / args.gradient_accumulation_steps), 1)
            self.epoch, done = divmod(state.global_step, updates)
            self.step = done * args.gradient_accumulation_steps
        else:  # as many steps as there may be, to the trainer
            self.steps = state.max_steps * args.gradient_accumulation_steps
            self.epoch, self.step = Position.of(state, self.steps)
        if args.ignore_data_skip:
            self.step = 0
        self.orders = [""] * self.epoch
        self.watch = self.opened.enter_context(watch_order(self.loader))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The next pass over the sampler is the epoch's."""
        if self._in_epoch:
            self.epoch, self.step = self.epoch + 1, 0
            self.orders += [""] * (self.epoch - len(self.orders))  # where the one before was none, or not a whole one
        self._in_epoch = True
        self.watch.expect()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the batch."""
        self.step += 1
        self.watch.count(self.step // self._sequence_parallel)

    on_substep_end = on_step_end

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the order of the epoch, if it is a whole one."""
        order = self.taken_order()
        if not order or self.step != self.steps:
            return
        self.orders[self.epoch :] = [order]
        if args.logging_strategy != "no":
            should_log = control.should_log
            logs: dict[str, Any] = {"epoch_order": order[:SHORT]}
            self.trainer.log(logs)
            control.should_log = should_log  # the metrics of the epoch's end are still to come

    def taken_order(self) -> str:
        """The digest of the rows taken of the epoch under way; empty if they are not seen."""
        digest = self.taken()
        return "" if digest is None else digest.hexdigest()

    def taken(self, further: int = 0) -> OrderDigest | None:
        """The rows taken of the epoch under way, and in some batches more; None if they are not seen."""
        return self.watch.take(ceil((self.step + further) / self._sequence_parallel))
