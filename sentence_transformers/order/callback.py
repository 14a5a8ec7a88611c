"""A callback that makes the order of a run visible, and tells when it is not what it should be.

Guarantee:

- At the end of each whole epoch its fingerprint is logged as a number, ``order_fingerprint``, in a record of its own:
  no record of the trainer's gets another entry. The console shows it in hexadecimal.
- Processes that share one plan compare data, seed, sampler and steps before the first step, the rows of the first
  step after it, and the rows of each epoch at its end.
- Each checkpoint has the manifest of the order. A run that goes on from one says after its first step, when it is
  known where it goes on, what has changed and what follows.
- Nothing is stopped, but by ``on_change="stop"``.

What cannot be seen is not compared: streams, batches that are no row numbers, and, where batches are dispatched, what
other processes than the main one hold.

Cost: a bounded look at the data (:mod:`~sentence_transformers.order.dataset_hash`), about 10 ns a row of each epoch,
and small collectives: two a run and one an epoch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from accelerate.state import PartialState
from datasets import Dataset
from torch.utils.data import RandomSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler, ExportableState
from transformers.utils import logging

from sentence_transformers.order.agreement import all_gather, disagreements
from sentence_transformers.order.compare import changes
from sentence_transformers.order.dataset_hash import SAMPLED_ROWS
from sentence_transformers.order.fingerprint import DIGITS, FEW_ROWS, order_digest
from sentence_transformers.order.logs import calling_handler, log_fingerprint
from sentence_transformers.order.manifest import DamagedManifest, OrderManifest
from sentence_transformers.order.progress import OrderProgress

logger = logging.get_logger(__name__)

_FOUND = "found"  # what a process has found to be changed; no fact to agree about


class OrderChanged(RuntimeError):
    """The order is not what it should be, and ``on_change`` is "stop"."""


class OrderCallback(TrainerCallback, ExportableState):
    """
    Logs the fingerprint of each epoch's order, and compares orders: over all processes, and with a checkpoint's.

    Example::

        trainer = SentenceTransformerTrainer(..., callbacks=[OrderCallback()])

    Args:
        on_change (str): What to do where processes disagree, or a run does not go on as its checkpoint's would have:
            "warn" or "stop". Defaults to "warn".
        hash_rows (int, optional): The number of rows of each dataset whose values are compared, evenly spread; None
            for all. Defaults to 1,000.

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(self, on_change: str = "warn", hash_rows: int | None = SAMPLED_ROWS) -> None:
        if on_change not in ("warn", "stop"):
            raise ValueError(f'on_change must be "warn" or "stop", but got {on_change!r}.')
        if hash_rows is not None and (isinstance(hash_rows, bool) or not isinstance(hash_rows, int) or hash_rows < 2):
            raise ValueError(f"hash_rows must be an integer of at least 2, or None for all, but got {hash_rows!r}.")
        self.on_change, self.hash_rows = on_change, hash_rows
        self.epochs: list[str] = []
        """The digest of each whole epoch; an empty string where there is none."""
        self.manifest: dict[str, Any] | None = None  # set by transformers, where it restores callbacks
        self._run: OrderProgress | None = None
        self._first: OrderCallback | None = None  # if it was given twice, the one that does something
        self._handler: CallbackHandler | None = None

    def state(self) -> dict[str, Any]:
        """What transformers keeps in a checkpoint."""
        if self._first is not None:
            return self._first.state()
        manifest = None
        if self._run is not None:
            here = self._run.here()
            manifest = replace(here, epochs=tuple(self.epochs[: int(here.epoch)])).to_dict()
        return {
            "args": {"on_change": self.on_change, "hash_rows": self.hash_rows},
            "attributes": {"manifest": manifest},
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Plug in, and compare what the processes start from."""
        self._run, self._first, self.epochs = None, None, []
        self._handler = calling_handler()
        # Where a checkpoint has no state of this callback, transformers would miss it when it saves
        stored, state.stateful_callbacks[type(self).__name__] = state.stateful_callbacks.get(type(self).__name__), {}
        if not self._is_usable(args):
            return
        run = OrderProgress(kwargs["train_dataloader"], args, state, self.hash_rows)
        self._args, self._state = args, state
        self._before = self._read(stored) if state.global_step and not args.ignore_data_skip else None
        self.epochs = list(self._before.epochs) if self._before is not None else []
        self._compared = self._repeat_told = self._stepped = False
        self._agreed = run.tracker.shared and PartialState().num_processes > 1
        if run.tracker.reason and state.is_world_process_zero:
            logger.warning(f"OrderCallback sees no order of rows: {run.tracker.reason}. Training goes on.")
        self._run = run
        self._agree(run.facts())

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The next pass over the sampler is the epoch's."""
        self._stepped = False
        if self._run is not None:
            self._run.tracker.expect()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the first step, compare with the checkpoint and with the other processes."""
        self._stepped = True
        if self._run is None:
            return
        if not self._compared:
            self._compared = True
            self._compare(self._run)
        self._run.taken()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the order of a whole epoch, once all processes agree about it."""
        if self._run is None or not self._stepped:
            return
        epoch = self._run.epoch()
        self.epochs = [*(self.epochs + [""] * epoch)[:epoch], ""]
        if not self._run.epoch_is_done() and (control.should_epoch_stop or control.should_training_stop):
            return  # perhaps on this process alone, which then must not wait for the others
        digest, rows = self._run.whole_epoch()
        name = f"order of epoch {epoch}"
        for record in self._agree({name: digest or None}):
            digest = digest or record.get(name) or ""
        self.epochs[epoch] = digest
        if digest and args.logging_strategy != "no":
            log_fingerprint(epoch, digest, self._handler, args, state, control)
        if digest and rows > FEW_ROWS:
            self._tell_of_repeat(self._run.tracker.sampler, epoch, rows)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A run that trained nothing says so."""
        if self._run is not None and not self._compared:
            self._compared = True
            if self._before is not None:
                self._tell_changes(changes(self._before, self._run.here()))
            elif not self._run.tracker.reason:
                logger.warning(
                    f"{self._run.options.batch_sampler} yields no batch, so that there was no order to see."
                )

    def _is_usable(self, args: Any) -> bool:
        if not isinstance(args, TrainingArguments):
            logger.warning("OrderCallback works with trainers of transformers alone; it does nothing in this run.")
            return False
        siblings = [] if self._handler is None else self._handler.callbacks
        first = next((one for one in siblings if isinstance(one, OrderCallback)), self)
        if first is not self:
            logger.warning("OrderCallback was given twice; only the first one does something. Pass it once.")
            self._first = first
            return False
        return True

    def _read(self, stored: Any) -> OrderManifest | None:
        """The manifest of the checkpoint, if it has one."""
        try:
            manifest = stored["attributes"]["manifest"] if stored else None
            return None if manifest is None else OrderManifest.from_dict(manifest)
        except (DamagedManifest, KeyError, TypeError) as error:
            if self._state.is_world_process_zero:
                logger.warning(
                    f"The manifest of the order in the checkpoint is damaged ({error}), so that nothing is compared "
                    "with it. Training goes on."
                )
            return None

    def _agree(self, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """Compare with the other processes, until they were found to disagree."""
        if not self._agreed or self._run is None:
            return [facts]
        records = all_gather(facts)
        lines = disagreements([{name: said for name, said in one.items() if name != _FOUND} for one in records])
        if lines:
            self._agreed = False
            self._tell("The processes do not share one order:", lines, _ways(self._run.tracker.dataset))
        return records

    def _compare(self, run: OrderProgress) -> None:
        """After the first step: its rows with the other processes', and those before it with the checkpoint's."""
        found: list[str] = []
        if self._before is not None and not (run.tracker.dispatched and run.tracker.current is None):
            found = changes(self._before, run.begun_at(self._before.rows))
        digest = run.taken()
        rows = None if digest is None else digest.hexdigest()[:DIGITS]
        records = self._agree({"order up to the first step": rows, _FOUND: found})
        self._tell_changes(next((one[_FOUND] for one in records if one[_FOUND]), []))

    def _tell_of_repeat(self, sampler: Any, epoch: int, rows: int) -> None:
        """Once, and of samplers that are to shuffle: one that yields rows as they are stored does not."""
        digest = self.epochs[epoch]
        inner = getattr(sampler, "__dict__", {}).get("sampler")
        shuffles = hasattr(type(sampler), "set_epoch") or isinstance(inner, RandomSampler)
        if self.epochs.index(digest) == epoch or self._repeat_told or not shuffles:
            return
        if digest == order_digest([np.arange(rows)]):
            return
        self._repeat_told = True
        way = f"{type(sampler).__qualname__} was not told the epoch, or does not draw by it."
        self._tell(f"Epoch {epoch} has the same order as epoch {self.epochs.index(digest)}.", [], way, may_stop=False)

    def _tell_changes(self, found: list[str]) -> None:
        if found:
            nothing_else = len(found) == 1 and "no step is left" in found[0]
            head = "The run does not go on as the one that saved the checkpoint would have:"
            self._tell(head, found, "To go on as before, bring back what has changed.", may_stop=not nothing_else)

    def _tell(self, head: str, lines: list[str], way: str, may_stop: bool = True) -> None:
        """Warn on the main process; or stop, on every one."""
        text = "\n".join([head, *(f"  {line}" for line in lines), way])
        if may_stop and self.on_change == "stop":
            raise OrderChanged(text)
        if self._state.is_world_process_zero:
            logger.warning(text)


def _ways(dataset: Any) -> str:
    """The way out where processes disagree."""
    for part in getattr(dataset, "datasets", [dataset]):
        if isinstance(part, Dataset) and part.format["type"] == "custom":
            transform = part.format["format_kwargs"].get("transform")
            return (
                f"The data has a transform, {getattr(transform, '__qualname__', transform)}: where it draws at "
                "random, a sampler that compares values has another order on each process."
            )
    return "Load and shuffle the data in the same way on every process, with the same seed and arguments."
