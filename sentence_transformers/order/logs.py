"""Log the fingerprint of an epoch: to the trackers as a number, to the console in hexadecimal.

transformers gives a callback neither its trainer nor its siblings, and calls the trackers before the callbacks of a
user, so that what one adds to a record in ``on_log`` does not come to them. So the fingerprint gets a record of its
own, which goes through the handler that calls all callbacks; that one is found among the callers, once a run. The
record does not go through ``Trainer.log``, which a trainer may have overridden to expect a loss in each record.
Without a handler, the fingerprint is in ``state.log_history`` and on the console alone.
"""

from __future__ import annotations

import inspect
from typing import Any

from tqdm import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from sentence_transformers.order.fingerprint import DIGITS

KEY = "order_fingerprint"


def calling_handler() -> CallbackHandler | None:
    """The handler that calls the callback that calls this."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, CallbackHandler):
            return caller
        frame = frame.f_back
    return None


def log_fingerprint(
    epoch: int,
    digest: str,
    handler: CallbackHandler | None,
    args: TrainingArguments,
    state: TrainerState,
    control: TrainerControl,
) -> None:
    """
    Log the order of an epoch.

    Args:
        epoch (int): Counted from 0.
        digest (str): Of its rows.
        handler (CallbackHandler, optional): Of the trainer's callbacks.
        args (TrainingArguments): The trainer's.
        state (TrainerState): The trainer's.
        control (TrainerControl): The trainer's; it stays as it is.
    """
    fingerprint = digest[:DIGITS]
    logs: dict[str, Any] = {KEY: int(fingerprint, 16), "epoch": state.epoch}
    state.log_history.append({**logs, "step": state.global_step})
    if state.is_world_process_zero:
        tqdm.write(f"epoch {epoch}: order {fingerprint} (logged as {int(fingerprint, 16)})")
    if handler is not None:
        should_log = control.should_log
        handler.on_log(args, state, control, logs)
        control.should_log = should_log  # the metrics of the epoch's end are still to come
