"""A run that checks its own order: on every process, from epoch to epoch, and when it goes on from a checkpoint.

Guarantee, within :func:`guard_order`, beside what :mod:`~sentence_transformers.base.order_log` logs:

- Processes that share one plan agree about it, or the run stops, on all of them, with an error that names which ones
  disagree about what: before the first step about data, seed, sampler, batch size, number of steps and the first rows,
  and at the end of each epoch about its order.
- A checkpoint has the identity of its order in ``order.json``. A run that goes on from it says once, before its first
  step, or if there is none, what has changed, what that means for the epoch under way, and how to go on.
- An epoch that repeats the order of an earlier one is reported once.

What cannot be seen is not compared: the rows of streams, of batches that are no integers, and data that cannot be
digested. When batches are dispatched, the other processes' data is not looked at, since it is not used.

Cost: a digest of the data, see :mod:`~sentence_transformers.base.contents`; it is made when it is first needed, for
processes to compare or for a checkpoint. Two small collectives a run, and one an epoch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pyarrow as pa
from datasets import Dataset
from torch.utils.data import ConcatDataset
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length
from transformers.utils import logging

from sentence_transformers.base.contents import contents_digest
from sentence_transformers.base.continuation import changes, meaning
from sentence_transformers.base.epoch import epochless_shufflers
from sentence_transformers.base.fingerprint import FEW_ROWS, SHORT
from sentence_transformers.base.identity import (
    DamagedIdentity,
    DataIdentity,
    OrderIdentity,
    described,
    read_identity,
    write_identity,
)
from sentence_transformers.base.order_log import OrderLog, log_order
from sentence_transformers.base.ranks import check_agreement, told
from sentence_transformers.base.scatter import DatasetOfBatches
from sentence_transformers.base.watching import plan_source

logger = logging.get_logger(__name__)

_ADVICE = {
    "warn": (
        "The run goes on as it is. To continue the one before, bring back what has changed; to begin the epoch under "
        'way anew, set ignore_data_skip=True; to silence this, order_guard="off".'
    ),
    "strict": (
        'To continue it, bring back what has changed. To go on knowingly, set order_guard="warn", or '
        "ignore_data_skip=True, with which the epoch under way begins anew."
    ),
}


class OrderChanged(ValueError):
    """A run does not go on as its checkpoint's run would have, and ``order_guard`` is "strict"."""


def guard_order(trainer: Trainer, resumed_from: str | None) -> AbstractContextManager[None]:
    """
    Within this context, ``trainer`` logs the fingerprints of its epochs, and checks its order; or neither.

    Args:
        trainer (:class:`transformers.Trainer`): A trainer about to enter its training loop. Its arguments have
            ``order_guard``; if that is "off", nothing is watched, logged, compared or kept.
        resumed_from (str, optional): The folder of the checkpoint that it goes on from.
    """
    args: Any = trainer.args
    return nullcontext() if args.order_guard == "off" else log_order(OrderGuard(trainer, resumed_from))


def save_order(trainer: Trainer, trial: Any = None) -> None:
    """Write the identity of the order into the folder of the checkpoint that ``trainer`` is about to save."""
    folder = f"{trainer._get_output_dir(trial=trial)}/checkpoint-{trainer.state.global_step}"
    for guard in trainer.callback_handler.callbacks:
        if isinstance(guard, OrderGuard) and trainer.args.should_save:
            guard.save(folder)


class OrderGuard(OrderLog):
    """
    Logs the order of a run, and checks it; see the module.

    Args:
        trainer (:class:`transformers.Trainer`): The trainer, about to enter its training loop.
        resumed_from (str, optional): The folder of the checkpoint that it goes on from.
    """

    def __init__(self, trainer: Trainer, resumed_from: str | None) -> None:
        super().__init__(trainer)
        self._folder = None if trainer.args.ignore_data_skip else resumed_from
        self._before: OrderIdentity | None = None
        self._damage = ""
        self._datasets: tuple[DataIdentity, ...] | None = None
        self._begun = self._repeat_said = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """All processes compare what they start from."""
        self._sampler = described(plan_source(kwargs["train_dataloader"]).sampler)  # before it is watched
        super().on_train_begin(args, state, control, **kwargs)
        if self._folder is not None:
            try:
                self._before = read_identity(self._folder)
            except DamagedIdentity as error:
                self._damage = str(error)
        if self._before is not None:
            self.orders = [*self._before.orders, *self.orders][: self.epoch]
        self._agreed(self._facts(state))
        # All epochs are done, perhaps because of what has changed. Later, other checkpoints may have been removed
        if state.global_step >= state.max_steps:
            self._begin(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the first step, compare its rows over all processes, and those before it with the checkpoint's."""
        self._begin(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """If there was no step, compare what can be told without."""
        self._begin(state)

    def _begin(self, state: TrainerState) -> None:
        if not self._begun:
            self._begun = True
            self._compare_beginnings(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See whether there was an order like the epoch's, after it is logged."""
        super().on_epoch_end(args, state, control, **kwargs)
        if len(self.orders) > self.epoch and not self._repeat_said and state.is_world_process_zero:
            self._say_if_repeated()

    def taken_order(self) -> str:
        """The digest of the rows taken of the epoch under way, once all processes agree about it."""
        order = super().taken_order()
        if not self.watch.source.shared:  # passes of their own may end at other times on other processes
            return order
        records = self._agreed({"steps taken in the epoch": self.step, "order of the epoch": order or None})
        return order or next(filter(None, (record.get("order of the epoch") for record in records)), "")

    def _agreed(self, facts: dict[str, Any]) -> list[dict[str, Any]]:
        records = told(facts, self.trainer.accelerator)
        check_agreement(records)
        return records

    def _facts(self, state: TrainerState) -> dict[str, Any]:
        """
        What must be the same on all processes for them to share one plan, as far as they share one.

        Of the sampler, its class: whether its arguments make a difference (a path, a progress bar) its rows tell.
        """
        source, accelerator = self.watch.source, self.trainer.accelerator
        facts: dict[str, Any] = {"step to go on from": state.global_step}
        facts |= {name: str(getattr(accelerator, name)) for name in ("dispatch_batches", "split_batches")}
        if source.shared:
            facts |= {"steps in an epoch": self.steps, "batch size over all processes": self._batch_size()}
        if source.shared and not source.dispatched:
            facts |= {"seed": self._seed(), "sampler": self._sampler.partition("(")[0]}
            for data in self._data():
                facts[f"rows of {data.name}"] = data.rows
                facts[f"contents of {data.name}"] = data.digest and data.digest[:SHORT]
        return facts

    def _seed(self) -> int:
        args = self.trainer.args
        return int(args.seed if args.data_seed is None else args.data_seed)

    def _batch_size(self) -> int:
        source = self.watch.source
        # A sampler of several datasets keeps the size that its first one had before this was planned across devices
        first = next(iter(getattr(source.sampler, "batch_samplers", ())), source.sampler)
        size = getattr(first, "batch_size", None)
        if isinstance(size, int):
            return size * source.per_step
        return int(self.trainer.args.train_batch_size * self.trainer.accelerator.num_processes)

    def _data(self) -> tuple[DataIdentity, ...]:
        """The datasets beneath the loader that have rows to count; digested once, when they are first asked for."""
        if self._datasets is None:
            dataset, named = getattr(self.loader, "dataset", None), self.trainer.train_dataset
            if isinstance(dataset, DatasetOfBatches):
                dataset = dataset.dataset
            if self.watch.source.sampler is None:
                parts = {}
            elif isinstance(dataset, ConcatDataset) and isinstance(named, dict):
                parts = dict(zip(named, dataset.datasets))
            else:
                parts = {"train_dataset": dataset}
            self._datasets = tuple(_data_identity(name, part) for name, part in parts.items() if has_length(part))
        return self._datasets

    def _identity(self) -> OrderIdentity:
        """Of the order, at the place where the run is; with the rows taken of the epoch under way."""
        digest = self.taken()
        return OrderIdentity(
            seed=self._seed(),
            epoch=self.epoch,
            step=self.step,
            steps=self.steps if has_length(self.loader) else 0,
            batch_size=self._batch_size(),
            processes=self.trainer.accelerator.num_processes,
            sampler=self._sampler,
            datasets=self._data(),
            rows=digest.rows if digest is not None else 0,
            taken=digest.hexdigest() if digest is not None else None,
            orders=tuple(self.orders[: self.epoch]),
            accumulation=self.trainer.args.gradient_accumulation_steps,
        )

    def save(self, folder: str) -> None:
        """Write the identity of the order into a checkpoint's folder; where that fails, say so once, and go on."""
        identity = self._identity()
        if self.step == self.steps:  # the epoch is done, and the next one to come
            orders = (*identity.orders, identity.taken or "")
            identity = replace(identity, epoch=self.epoch + 1, step=0, rows=0, taken=None, orders=orders)
        try:
            write_identity(folder, identity)
        except OSError as error:
            logger.warning_once(
                f"The identity of the order is not kept, since it cannot be written: {error}. A run that goes on from "
                "such a checkpoint cannot tell whether it is a continuation."
            )

    def _compare_beginnings(self, state: TrainerState) -> None:
        """Before the first step: its rows over all processes, and what comes before it with the checkpoint."""
        source = self.watch.source
        said: dict[str, Any] = {"damage": self._damage}
        # The identity is the main process's; it is that of others where they have its plan, too
        if self._before is not None and (state.is_world_process_zero or (source.shared and not source.dispatched)):
            now = self._identity()
            means = meaning(self._before, now)
            if state.global_step >= state.max_steps:
                means += (
                    f" No step is left to train: {state.global_step} were done, of {state.max_steps} as it is now."
                )
            said |= {"found": changes(self._before, now), "means": means}
        first = self.taken(1)
        shared = {"the first rows": first.short()} if source.shared and first is not None else {}
        records = told({**said, "shared": shared}, self.trainer.accelerator)
        check_agreement([record["shared"] for record in records])
        for record in records:
            if record["damage"] or record.get("found"):
                self._report(record, state)
                return

    def _report(self, said: dict[str, Any], state: TrainerState) -> None:
        """Say what has changed: with "strict" by an error, on every process."""
        text = (
            f"Whether the run goes on as the one before would have cannot be told: {said['damage']}. It goes on as "
            "from a checkpoint that has none."
        )
        if said.get("found"):
            lines = "".join(f"  - {line}\n" for line in said["found"])
            args: Any = self.trainer.args
            mode = args.order_guard
            text = (
                f"The run does not go on as the one that saved {self._folder} would have. What has changed:\n"
                f"{lines}{said['means']}\n{_ADVICE[mode]}"
            )
            if mode == "strict":
                raise OrderChanged(text)
        if state.is_world_process_zero:
            logger.warning(text)

    def _say_if_repeated(self) -> None:
        earlier = self.orders.index(self.orders[self.epoch])
        digest = self.taken()
        if earlier == self.epoch or digest is None or digest.rows <= FEW_ROWS:
            return
        self._repeat_said = True
        logger.warning(
            f"Epoch {self.epoch} has the same order as epoch {earlier} ({self.orders[earlier][:SHORT]}). "
            f"{self._cause()} Each epoch should come in an order of its own. If this one is meant to be so, "
            'order_guard="off" silences this.'
        )

    def _cause(self) -> str:
        """Why an order may repeat."""
        shufflers = [type(sampler).__qualname__ for sampler in epochless_shufflers(self.loader)]
        if shufflers:
            return f"{shufflers[0]} shuffles, but has no `set_epoch` method to be told the epoch by."
        if hasattr(self.watch.source.sampler, "set_epoch"):
            return f"{self._sampler} is told the epoch, but does not draw its order by it."
        return f"{self._sampler} has no `set_epoch` method, and does not shuffle."


def _data_identity(name: str, dataset: Any) -> DataIdentity:
    digest = None
    if isinstance(dataset, Dataset):
        try:
            digest = contents_digest(dataset)
        except (pa.ArrowException, OSError, ValueError) as error:
            logger.warning_once(
                f"The values of {name} are not compared with those of other processes or of a checkpoint, since they "
                f'cannot be digested: {error}. order_guard="off" digests nothing.'
            )
    return DataIdentity(name, len(dataset), digest)
