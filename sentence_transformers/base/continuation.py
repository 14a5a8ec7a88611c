"""What has changed when a run goes on from a checkpoint, and what that means for the epoch under way.

Guarantee: :func:`changes` names everything that differs and decides the order. The number of processes and of
accumulated batches do not, as long as the same rows are in each optimizer step. :func:`meaning` says no more than is
known.

Known bias: of a sampler's arguments, those that decide nothing are told from the others by the rows taken. Between
epochs there are none, and each argument counts. Where processes or batches are others now, an epoch may have a step
more or less: its last, which not every number of processes can share.

Cost: none.
"""

from __future__ import annotations

import re
from math import ceil
from typing import Any

from sentence_transformers.base.identity import OrderIdentity

# How `no_duplicates` computes what it draws by
_OF_NO_ACCOUNT = re.compile(r", precompute_\w+=[^,()]+")


def changes(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    """
    What has changed, one line each; empty if the run goes on as it would have.

    Args:
        before (OrderIdentity): Of the checkpoint.
        now (OrderIdentity): Of the run that goes on from it, at the place where it goes on.
    """
    found = [*_changes_of_data(before, now)]
    if before.seed != now.seed:
        found.append(f"seed: {before.seed}, now {now.seed}")
    found += _changes_of_batches(before, now)
    if _deciding(before.sampler, before, now) != _deciding(now.sampler, before, now):
        found.append(f"sampler: {before.sampler}, now {now.sampler}")
    found += _changes_of_steps(before, now)
    if _is_moved(before, now):
        epoch = "" if before.epoch == now.epoch else f" of epoch {now.epoch}"
        old, new = _rows_taken(before, now)
        found.append(f"place: after {old} rows of epoch {before.epoch}, now after {new}{epoch}")
    if not found and _is_other_order(before, now):
        found.append(
            f"order: the first {before.rows} rows of epoch {before.epoch} are other ones now, though data, seed and "
            "sampler are the same; the sampler draws by something else, or was changed"
        )
    return found


def _changes_of_data(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    names, names_now = ([data.name for data in one.datasets] for one in (before, now))
    if names != names_now:
        return [f"datasets: {', '.join(names) or 'a stream'}, now {', '.join(names_now) or 'a stream'}"]
    found = []
    for old, new in zip(before.datasets, now.datasets):
        if old.rows != new.rows:
            found.append(f"data of {old.name}: {old.rows} rows, now {new.rows}")
        elif old.digest != new.digest and old.digest and new.digest:
            found.append(
                f"data of {old.name}: other values, or the same rows in another order, or stored in another way"
            )
    return found


def _accumulations(before: OrderIdentity, now: OrderIdentity) -> tuple[int, int]:
    """The batches in an optimizer step; of a checkpoint that does not say, as many as now."""
    new = now.accumulation or 1
    return before.accumulation or new, new


def _changes_of_batches(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    """Rows are taken alike if as many are in each optimizer step, in however many batches."""
    old, new = _accumulations(before, now)
    if before.batch_size * old == now.batch_size * new:
        return []
    if old == new:
        return [f"batch size over all processes: {before.batch_size}, now {now.batch_size}"]
    return [
        f"rows in an optimizer step: {before.batch_size * old} (batches of {before.batch_size}, {old} accumulated), "
        f"now {now.batch_size * new} (batches of {now.batch_size}, {new} accumulated)"
    ]


def _is_laid_out_anew(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the rows of an optimizer step come to other processes, or in other batches, than they did."""
    old, new = _accumulations(before, now)
    return (before.processes, before.batch_size, old) != (now.processes, now.batch_size, new)


def _changes_of_steps(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    """The steps of an epoch; but for its last one, which some layouts take and others cannot share out."""
    if not _is_laid_out_anew(before, now):
        same = before.steps == now.steps
        return [] if same else [f"steps in an epoch: {before.steps}, now {now.steps}"]
    old, new = (ceil(one.steps / size) for one, size in zip((before, now), _accumulations(before, now)))
    return [] if abs(old - new) <= 1 else [f"optimizer steps in an epoch: {old}, now {new}"]


def _deciding(sampler: str, before: OrderIdentity, now: OrderIdentity) -> Any:
    """
    Of a sampler's description, what is taken to decide the order.

    Where the rows taken are the same, its arguments have made no difference (a path, a progress bar); but the batch
    size may make one later. Those named in ``_OF_NO_ACCOUNT`` never do.
    """
    if not _begins_alike(before, now):
        return _OF_NO_ACCOUNT.sub("", sampler)
    without_texts = re.sub(r"'[^']*'|\"[^\"]*\"", "", sampler)
    return re.findall(r"[\w.<>]+\(|\bbatch_size=\d+", without_texts)


def _are_seen(before: OrderIdentity, now: OrderIdentity) -> bool:
    return before.taken is not None and now.taken is not None


def _rows_taken(before: OrderIdentity, now: OrderIdentity) -> tuple[int, int]:
    """Of the epoch under way, then and now: those seen, or as many as the steps should have taken."""
    seen = _are_seen(before, now)
    old, new = (one.rows if seen else one.step * one.batch_size for one in (before, now))
    return old, new


def _is_moved(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the run goes on elsewhere. Of a stream, whose passes have no known end, that cannot be told."""
    if not before.datasets:
        return False
    old, new = _rows_taken(before, now)
    # A last step that this layout cannot share out is not taken: the epoch is over before it
    is_over = not _changes_of_batches(before, now) and 0 < now.steps * now.batch_size <= old
    place = (before.epoch + 1, 0) if is_over else (before.epoch, old)
    return place != (now.epoch, new)


def _is_comparable(before: OrderIdentity, now: OrderIdentity) -> bool:
    return _are_seen(before, now) and (before.epoch, before.rows) == (now.epoch, now.rows)


def _is_other_order(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the rows taken before are known not to be those that the order now begins with."""
    return _is_comparable(before, now) and before.taken != now.taken


def _begins_alike(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the rows taken before are known to be those that the order now begins with, by their numbers."""
    return _is_comparable(before, now) and before.rows > 0 and before.taken == now.taken


def meaning(before: OrderIdentity, now: OrderIdentity) -> str:
    """What the changes mean for the epoch under way; no more is said than is known."""
    old, new = _rows_taken(before, now)
    under_way = f"Epoch {before.epoch} was stopped after {old} rows. " if before.step else "No epoch was under way. "
    if _is_other_order(before, now):
        return under_way + (
            "The rest of it is drawn from another order or other data, so that some of its rows are seen twice, and "
            "others not at all."
        )
    if _is_moved(before, now):
        is_as_planned = not _changes_of_data(before, now) and (before.seed, before.sampler) == (now.seed, now.sampler)
        skipped = "left out" if (now.epoch, new) > (before.epoch, old) else "seen twice"
        between = f"so that the rows between are {skipped}" if is_as_planned else "in what may be another order"
        return under_way + f"The run goes on at row {new} of epoch {now.epoch}, {between}."
    if _begins_alike(before, now):
        rows = "The order begins with the same rows now as then, but "
        if _changes_of_data(before, now):
            rows = "The order begins with the same row numbers now as then, but these rows may hold other values, and "
        return under_way + rows + "the rest of it may be another."
    if not before.step:
        return under_way + "Those to come may not be the ones that the run before would have had."
    return under_way + (
        "The rest of it may be drawn from another order or other data, so that some of its rows may be seen twice, "
        "and others not at all."
    )
