"""A run that checks its own order: on every process, from epoch to epoch, and when it goes on from a checkpoint.

Guarantee, within :func:`guard_order`:

- At the end of each epoch, the fingerprint of its order is logged as ``epoch_order``. It is of the rows that the
  epoch's steps took, over all processes, in the order planned: the same on every process and in every launch mode
  where the plan is the same.
- Processes that share one plan agree about it, or the run stops, on all of them, with an error that names which ones
  disagree about what: before the first step about data, seed, sampler, batch size, number of steps and the first rows,
  and at the end of each epoch about its order.
- A checkpoint has the identity of its order in ``order.json``. A run that goes on from it says once, before its first
  step, what has changed, what that means for the epoch under way, and how to go on.
- An epoch that repeats the order of an earlier one is reported once.

A pass that ends early (``max_steps``), rows that are streamed, and samplers whose batches are no integers have no
fingerprint; then none is logged, and the order itself is not compared.

Cost: see :mod:`~sentence_transformers.base.watching` and :mod:`~sentence_transformers.base.contents`; two small
collectives a run and one an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import ceil
from typing import Any

from datasets import Dataset
from torch.utils.data import ConcatDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length
from transformers.utils import logging

from sentence_transformers.base.contents import contents_digest
from sentence_transformers.base.epoch import epochless_shufflers
from sentence_transformers.base.fingerprint import SHORT, OrderDigest
from sentence_transformers.base.identity import (
    DamagedIdentity,
    DataIdentity,
    OrderIdentity,
    changes,
    described,
    meaning,
    read_identity,
    write_identity,
)
from sentence_transformers.base.ranks import check_agreement, told
from sentence_transformers.base.watching import plan_source, watch_order

logger = logging.get_logger(__name__)

_KNOWINGLY = {"warn": 'set order_guard="off"', "strict": 'set order_guard="warn"'}
_FEW_ROWS = 12  # 12! orders are so few that one may come twice by chance


class OrderChanged(ValueError):
    """A run does not go on as its checkpoint's run would have, and ``order_guard`` is "strict"."""


@contextmanager
def guard_order(trainer: Trainer, resumed_from: str | None) -> Iterator[None]:
    """
    Within this context, ``trainer`` logs the fingerprints of its epochs, and checks its order.

    Args:
        trainer (:class:`transformers.Trainer`): A trainer about to enter its training loop. Its arguments have
            ``order_guard``.
        resumed_from (str, optional): The folder of the checkpoint that it goes on from.
    """
    guard = OrderGuard(trainer, resumed_from)
    trainer.add_callback(guard)
    try:
        with guard.opened:
            yield
    finally:
        trainer.remove_callback(guard)


def save_order(trainer: Trainer, trial: Any = None) -> None:
    """Write the identity of the order into the folder of the checkpoint that ``trainer`` is about to save."""
    folder = f"{trainer._get_output_dir(trial=trial)}/checkpoint-{trainer.state.global_step}"
    for guard in trainer.callback_handler.callbacks:
        if isinstance(guard, OrderGuard) and trainer.args.should_save:
            guard.save(folder)


class OrderGuard(TrainerCallback):
    """
    Watches the training dataloader of a trainer; see the module.

    Args:
        trainer (:class:`transformers.Trainer`): The trainer, about to enter its training loop.
        resumed_from (str, optional): The folder of the checkpoint that it goes on from.
    """

    def __init__(self, trainer: Trainer, resumed_from: str | None) -> None:
        self.trainer = trainer
        self.mode: str = trainer.args.order_guard
        self.opened = ExitStack()
        self._folder = None if trainer.args.ignore_data_skip else resumed_from
        self._before: OrderIdentity | None = None
        self._damage = ""
        self._datasets: tuple[DataIdentity, ...] | None = None
        self._in_epoch = self._begun = self._repeat_said = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch; all processes compare what they start from."""
        self._loader = kwargs["train_dataloader"]
        self._epoch, self._step, self._steps = self._place(args, state)
        self._orders = [""] * self._epoch
        self._sampler = described(plan_source(self._loader).sampler)
        self._watch = self.opened.enter_context(watch_order(self._loader))
        if self.mode == "off":
            return
        if self._folder is not None:
            self._read_identity(self._folder)
        check_agreement(told(self._facts(state), self.trainer.accelerator))

    def _place(self, args: TrainingArguments, state: TrainerState) -> tuple[int, int, int]:
        """Epoch, batches taken of it, and batches of an epoch, as the trainer counts them."""
        # A loader without a length is one epoch to the trainer, as many steps as that may take
        steps = state.max_steps * args.gradient_accumulation_steps
        if has_length(self._loader):
            steps = len(self._loader)
        epoch, updates = divmod(state.global_step, max(ceil(steps / args.gradient_accumulation_steps), 1))
        return epoch, 0 if args.ignore_data_skip else updates * args.gradient_accumulation_steps, steps

    def _read_identity(self, folder: str) -> None:
        try:
            self._before = read_identity(folder)
        except DamagedIdentity as error:
            self._damage = str(error)
        if self._before is not None:
            self._orders = [*self._before.orders, *self._orders][: self._epoch]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The next pass over the sampler is the epoch's."""
        if self._in_epoch:
            self._epoch, self._step = self._epoch + 1, 0
        self._in_epoch = True
        self._watch.expect()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the first step, compare its rows over all processes, and those before it with the checkpoint's."""
        if not self._begun:
            self._begun = True
            if self.mode != "off":
                self._compare_beginnings(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the batch."""
        self._step += 1
        self._watch.take(self._step)

    on_substep_end = on_step_end

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare the epoch's order over all processes, log it, and see whether there was one like it."""
        taken = self._watch.take(self._step)
        order = taken.hexdigest() if taken is not None else None
        if self.mode != "off":
            shared = {"steps taken in the epoch": self._step, "order of the epoch": order}
            records = told(shared if self._watch.source.shared else {}, self.trainer.accelerator)
            check_agreement(records)
            order = next((record["order of the epoch"] for record in records if record), None) or order
        if order is None or self._step != self._steps:
            return
        self._orders[self._epoch :] = [order]
        if self.mode != "off" and taken is not None and taken.rows > _FEW_ROWS:
            self._say_if_repeated(state)
        if args.logging_strategy != "no":
            should_log = control.should_log
            self.trainer.log({"epoch_order": order[:SHORT]})
            control.should_log = should_log  # the metrics of the epoch's end are still to come

    def _facts(self, state: TrainerState) -> dict[str, Any]:
        """What must be the same on all processes for them to share one plan, as far as they share one."""
        source = self._watch.source
        facts: dict[str, Any] = {"step to go on from": state.global_step}
        if source.shared:
            facts |= {"steps in an epoch": self._steps, "batch size over all processes": self._batch_size()}
        if source.shared and not source.dispatched:
            facts |= {"seed": self._seed(), "sampler": self._sampler}
            for data in self._data():
                facts[f"rows of {data.name}"] = data.rows
                facts[f"contents of {data.name}"] = data.digest and data.digest[:SHORT]
        return facts

    def _seed(self) -> int:
        args = self.trainer.args
        return int(args.seed if args.data_seed is None else args.data_seed)

    def _batch_size(self) -> int:
        source = self._watch.source
        size = getattr(source.sampler, "batch_size", None)
        if isinstance(size, int):
            return size * source.per_step
        return int(self.trainer.args.train_batch_size * self.trainer.accelerator.num_processes)

    def _data(self) -> tuple[DataIdentity, ...]:
        """The datasets beneath the loader; digested once, when they are first asked for."""
        if self._datasets is None:
            dataset, named = self._loader.dataset, self.trainer.train_dataset
            if self._watch.source.sampler is None:
                parts = {}
            elif isinstance(dataset, ConcatDataset) and isinstance(named, dict):
                parts = dict(zip(named, dataset.datasets))
            else:
                parts = {"train_dataset": dataset}
            self._datasets = tuple(_data_identity(name, part) for name, part in parts.items())
        return self._datasets

    def _identity(self, digest: OrderDigest | None) -> OrderIdentity:
        """Of the order, at the place where the run is; with the rows taken of the epoch under way."""
        return OrderIdentity(
            seed=self._seed(),
            epoch=self._epoch,
            step=self._step,
            steps=self._steps,
            batch_size=self._batch_size(),
            processes=self.trainer.accelerator.num_processes,
            sampler=self._sampler,
            datasets=self._data(),
            rows=digest.rows if digest is not None else 0,
            taken=digest.hexdigest() if digest is not None else None,
            orders=tuple(self._orders[: self._epoch]),
        )

    def save(self, folder: str) -> None:
        """Write the identity of the order into a checkpoint's folder; where that fails, say so once, and go on."""
        if self.mode == "off":
            return
        digest = self._watch.take(self._step)
        identity = self._identity(digest)
        if self._step == self._steps:  # the epoch is done, and the next one to come
            order = digest.hexdigest() if digest is not None else ""
            orders = (*identity.orders, order)
            identity = replace(identity, epoch=self._epoch + 1, step=0, rows=0, taken=None, orders=orders)
        try:
            write_identity(folder, identity)
        except OSError as error:
            logger.warning_once(
                f"The identity of the order is not kept, since it cannot be written: {error}. A run that goes on from "
                f"{folder} cannot tell whether it is a continuation."
            )

    def _compare_beginnings(self, state: TrainerState) -> None:
        """Before the first step: its rows over all processes, and what comes before it with the checkpoint."""
        before, source = self._before, self._watch.source
        taken = self._watch.take(self._step)
        found, means = [], ""
        if before is not None and (state.is_world_process_zero or not source.dispatched):
            now = self._identity(taken)
            found, means = changes(before, now), meaning(before, now)
        first = self._watch.take(self._step + 1)
        shared = {"the first rows": first.short()} if source.shared and first is not None else {}
        records = told(
            {"shared": shared, "found": found, "means": means, "damage": self._damage}, self.trainer.accelerator
        )
        check_agreement([record["shared"] for record in records])
        for record in records:
            if record["found"] or record["damage"]:
                self._report(state, **record)
                return

    def _report(self, state: TrainerState, found: list[str], means: str, damage: str, **kwargs: Any) -> None:
        """Say what has changed: with "strict" by an error, on every process."""
        if damage:
            text = (
                f"Whether the run goes on as the one before would have cannot be told: {damage}. It goes on as from a "
                "checkpoint that has none."
            )
        else:
            listed = "\n".join(f"  - {line}" for line in found)
            text = (
                f"The run does not go on as the one that saved {self._folder} would have. What has changed:\n{listed}\n"
                f"{means}\nTo continue it, bring back what has changed. To go on knowingly, {_KNOWINGLY[self.mode]}; "
                "with ignore_data_skip=True the epoch under way begins anew."
            )
            if self.mode == "strict":
                raise OrderChanged(text)
        if state.is_world_process_zero:
            logger.warning(text)

    def _say_if_repeated(self, state: TrainerState) -> None:
        earlier = self._orders.index(self._orders[self._epoch])
        if earlier == self._epoch or self._repeat_said:
            return
        self._repeat_said = True
        if state.is_world_process_zero:
            logger.warning(
                f"Epoch {self._epoch} has the same order as epoch {earlier} ({self._orders[earlier][:SHORT]}). "
                f"{self._cause()} Each epoch should come in an order of its own."
            )

    def _cause(self) -> str:
        """Why an order may repeat."""
        shufflers = [type(sampler).__qualname__ for sampler in epochless_shufflers(self._loader)]
        if shufflers:
            return f"{shufflers[0]} shuffles, but has no `set_epoch` method to be told the epoch by."
        if hasattr(self._watch.source.sampler, "set_epoch"):
            return f"{self._sampler} is told the epoch, but does not draw its order by it."
        return f"{self._sampler} has no `set_epoch` method, and does not shuffle."


def _data_identity(name: str, dataset: Any) -> DataIdentity:
    digest = contents_digest(dataset) if isinstance(dataset, Dataset) else None
    return DataIdentity(name, len(dataset), digest)
