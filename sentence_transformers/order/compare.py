"""What has changed when a run goes on from a checkpoint, and what follows from it. Pure functions of two manifests.

Guarantee: a line for each option that decides the order and has changed, with its old value, its new one, and what
follows. The number of processes and of accumulated batches do not count, as long as each optimizer step has as many
rows. Where no option has changed, the rows themselves are compared.

Known bias: a sampler's arguments are not compared, but by the rows that it yields.
"""

from __future__ import annotations

import math

from sentence_transformers.order.fingerprint import FEW_ROWS
from sentence_transformers.order.manifest import OrderManifest


def changes(before: OrderManifest, now: OrderManifest) -> list[str]:
    """
    What has changed, one line each; empty if the run goes on as it would have.

    Args:
        before (OrderManifest): Of the checkpoint.
        now (OrderManifest): Of the run that goes on, at the place where it does, with the digest of as many rows as
            were taken before.
    """
    found = [*_changes_of_data(before, now), *_changes_of_options(before, now)]
    if now.step >= now.max_steps:
        return [*found, _nothing_left(before, now)]
    return found + (_change_of_place(before, now) or ([] if found else _change_of_rows(before, now)))


def _changes_of_data(before: OrderManifest, now: OrderManifest) -> list[str]:
    names, names_now = ([data.name for data in one.datasets] for one in (before, now))
    if names != names_now:
        shown = (", ".join(one) or "a stream" for one in (names, names_now))
        return [f"datasets: {next(shown)}, now {next(shown)}: {_other_order(before, now)}"]
    found = []
    for old, new in zip(before.datasets, now.datasets):
        if old.rows != new.rows:
            found.append(f"rows of {old.name}: {old.rows}, now {new.rows}: {_other_order(before, now)}")
        elif old.hash and new.hash and old.hash != new.hash:
            found.append(
                f"values of {old.name}: hash {old.hash[:12]}, now {new.hash[:12]}: the rows of these numbers hold "
                "other values, or are other rows"
            )
    return found


def _changes_of_options(before: OrderManifest, now: OrderManifest) -> list[str]:
    found = []
    if before.seed != now.seed:
        found.append(f"seed: {before.seed}, now {now.seed}: {_other_order(before, now)}")
    if before.batch_sampler != now.batch_sampler:
        found.append(f"batch_sampler: {before.batch_sampler}, now {now.batch_sampler}: {_other_order(before, now)}")
    if before.batch_size * before.accumulation != now.batch_size * now.accumulation:
        found.append(
            f"rows in an optimizer step: {_step_rows(before)}, now {_step_rows(now)}: an epoch has "
            f"{_steps(now)} steps, not {_steps(before)}"
        )
    elif abs(_steps(before) - _steps(now)) > 1 and not found and before.datasets == now.datasets:
        found.append(f"steps in an epoch: {_steps(before)}, now {_steps(now)}: {_other_order(before, now)}")
    return found


def _step_rows(one: OrderManifest) -> str:
    rows = one.batch_size * one.accumulation
    return str(rows) if one.accumulation == 1 else f"{rows} ({one.accumulation} batches of {one.batch_size})"


def _steps(one: OrderManifest) -> int:
    """Optimizer steps in an epoch."""
    return math.ceil(one.batches_per_epoch / one.accumulation)


def _change_of_place(before: OrderManifest, now: OrderManifest) -> list[str]:
    """Where the run goes on; of a stream, whose passes have no known end, that cannot be told."""
    old, new = _place(before), _place(now)
    if not before.datasets or not now.datasets or old == new:
        return []
    between = "are left out" if new > old else "come twice"
    follows = f"the rows between {between}" if before.seed == now.seed else "in another order"
    return [f"place: after {old[1]} rows of epoch {old[0]}, now after {new[1]} rows of epoch {new[0]}: {follows}"]


def _change_of_rows(before: OrderManifest, now: OrderManifest) -> list[str]:
    seen = before.digest is not None and now.digest is not None and before.rows == now.rows
    if not seen or before.digest == now.digest:
        return []
    return [
        f"order: the first {before.rows} rows of epoch {int(before.epoch)} are other ones now, though data, seed and "
        "sampler are the same (the epoch does not reach the sampler, or it draws by something else): of the rest, "
        "some rows come twice and others not at all"
    ]


def _place(one: OrderManifest) -> tuple[int, int]:
    """The epoch under way, counted from 0, and the rows taken of it."""
    epoch = int(one.epoch)
    if one.digest is not None:
        return epoch, one.rows
    return epoch, round((one.epoch - epoch) * one.batches_per_epoch) * one.batch_size


def _other_order(before: OrderManifest, now: OrderManifest) -> str:
    """What follows from an option that decides the order, as far as it is known."""
    epoch, rows = _place(before)
    if not rows:
        return f"from epoch {epoch} on, the order may be another one"
    if before.digest is not None and before.digest == now.digest and before.rows > FEW_ROWS:
        return f"the {rows} rows taken of epoch {epoch} are the same in both orders"
    return f"the rest of epoch {epoch} is drawn from another order, where some rows come twice and others not at all"


def _nothing_left(before: OrderManifest, now: OrderManifest) -> str:
    left = f"no step is left to train, since {now.step} of {now.max_steps} are done"
    if before.num_train_epochs != now.num_train_epochs:
        return f"num_train_epochs: {before.num_train_epochs:g}, now {now.num_train_epochs:g}: {left}"
    return f"max_steps: {before.max_steps}, now {now.max_steps}: {left}"
