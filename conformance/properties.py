"""What is promised of the rows that each process sees, as pure functions over what a run recorded.

Each function returns what is wrong, in a few words that name epoch, step and rows; an empty string if nothing is.
Cost: linear in the rows recorded, times the number of epochs. Known bias: none of them knows how rows were drawn, so
an order that only looks shuffled passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Steps = list[list[int]]
"""The rows of one process's batches, by step."""


@dataclass(frozen=True)
class Record:
    """
    What one process saw of a run.

    Args:
        steps: The rows of its batch at each step.
        starts: The steps with which epochs began, in the numbering of ``steps``.
        promised: The length of its dataloader, in steps; None if it has none.
        yielded: The number of batches that its dataloader has when read to the end; None if it was not read so.
    """

    steps: Steps
    starts: tuple[int, ...] = (0,)
    promised: int | None = None
    yielded: int | None = None

    @property
    def epochs(self) -> list[Steps]:
        """The steps, by epoch."""
        return [self.steps[start:end] for start, end in zip(self.starts, [*self.starts[1:], len(self.steps)])]


def epochs_of(steps: Steps, epochs: int) -> list[Steps]:
    """The steps of a whole run of epochs of one length, by epoch."""
    length = len(steps) // epochs
    return [steps[epoch * length : (epoch + 1) * length] for epoch in range(epochs)]


Ranks = Sequence[Record]
"""A run: the records of its processes, by rank."""


def new_order(ranks: Ranks) -> str:
    """No epoch has the batches of an earlier one, on any rank, nor are they rows 0 to 7, 8 to 15 and so on."""
    for rank, record in enumerate(ranks):
        epochs = record.epochs
        if len(epochs) < 2:
            return f"rank {rank} began {len(epochs)} epoch, so that there is nothing to compare"
        for later, epoch in enumerate(epochs):
            if epoch == sorted(map(sorted, epoch)):
                return f"rank {rank} reads epoch {later} from first row to last, not shuffled"
            for earlier in range(later):
                if epoch == epochs[earlier]:
                    return f"epoch {later} has the order of epoch {earlier} on rank {rank}"
    return ""


def ranks_agree(ranks: Ranks) -> str:
    """At each step the ranks have rows of one plan, none of them twice; and they take equal numbers of steps."""
    for epoch, epochs in enumerate(zip(*(record.epochs for record in ranks))):
        counts = [len(steps) for steps in epochs]
        if len(set(counts)) > 1:
            return f"epoch {epoch} has {_listed(counts)} steps on ranks {_listed(range(len(ranks)))}"
        shared = {step: _repeated(batches) for step, batches in enumerate(zip(*epochs)) if _repeated(batches)}
        if shared:
            step, rows = next(iter(shared.items()))
            where = f"step {step} of epoch {epoch}, and in {len(shared)} of {counts[0]} steps"
            return f"rows {_listed(rows)} are on several ranks in {where}"
    begun = [len(record.starts) for record in ranks]
    return f"ranks began {_listed(begun)} epochs" if len(set(begun)) > 1 else ""


def coverage(ranks: Ranks, rows: int, left_out: int = 0) -> str:
    """All ranks together see each of ``rows`` rows at most once an epoch, and at most ``left_out`` of them never."""
    for epoch, epochs in enumerate(zip(*(record.epochs for record in ranks))):
        batches = [batch for steps in epochs for batch in steps]
        repeated, seen = _repeated(batches), {row for batch in batches for row in batch}
        never = sorted(set(range(rows)) - seen)
        if repeated or len(never) > left_out or not seen <= set(range(rows)):
            return f"epoch {epoch} of {rows} rows: {len(repeated)} seen again, {len(never)} never"
    return ""


def length(ranks: Ranks) -> str:
    """``len(dataloader)`` is the number of steps of each epoch, and of batches that the dataloader has."""
    for rank, record in enumerate(ranks):
        taken = [len(epoch) for epoch in record.epochs]
        if record.promised is None:
            return f"rank {rank} has a dataloader without a length"
        if set(taken) != {record.promised}:
            return f"{record.promised} steps promised on rank {rank}, {_listed(taken)} taken in its epochs"
        if record.yielded != record.promised:
            return f"{record.promised} steps promised on rank {rank}, {record.yielded} batches in its dataloader"
    return ""


def resumed(whole: Ranks, cut: int, after: Ranks) -> str:
    """
    Resumed after step ``cut``, a run sees at each step what the uninterrupted one sees.

    On as many processes, each rank sees the rows that it would have seen, in that order. On another number of them,
    all ranks together do, in any order.
    """
    one_to_one = len(whole) == len(after)
    sides = [[record.steps[cut:] for record in whole], [record.steps for record in after]]
    expected, found = sides if one_to_one else [[_joined(ranks)] for ranks in sides]
    left, taken = (sorted({len(steps) for steps in side}) for side in (expected, found))
    if left[0] == 0:
        return f"no step was left after {cut}"
    pairs = ((step, a, b) for one, other in zip(expected, found) for step, (a, b) in enumerate(zip(one, other), cut))
    differ = sorted({step for step, a, b in pairs if a != b})
    if left != taken:
        return f"{_listed(taken)} steps taken from step {cut} on, {_listed(left)} left; {len(differ)} of them differ"
    return f"{len(differ)} of {left[0]} steps differ: {_listed(differ, most=12)}" if differ else ""


def own_orders(ranks: Ranks, lengths: Sequence[int]) -> str:
    """Datasets of equal length, numbered through, are each drawn in a permutation of their own."""
    rows = [row for step in zip(*(record.epochs[0] for record in ranks)) for batch in step for row in batch]
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    orders = [[row - start for row in rows if start <= row < start + n] for start, n in zip(starts, lengths)]
    for later, order in enumerate(orders):
        for earlier in range(later):
            if order == orders[earlier]:
                return f"dataset {later} is drawn in the order of dataset {earlier}"
    return ""


def follows_data_seed(same: Sequence[Ranks], other: Ranks) -> str:
    """Runs of one ``data_seed`` and different ``seed`` have one order, a run of another ``data_seed`` has another."""
    orders = [[record.steps for record in ranks] for ranks in same]
    if any(order != orders[0] for order in orders):
        return "the order follows seed, with the same data_seed"
    if [record.steps for record in other] == orders[0]:
        return "another data_seed makes no other order"
    return ""


def _joined(ranks: list[Steps]) -> Steps:
    """The rows of all ranks at each step, sorted."""
    return [sorted(row for batch in step for row in batch) for step in zip(*ranks)]


def _repeated(batches: Iterable[list[int]]) -> list[int]:
    """The rows that occur more than once."""
    return sorted(row for row, times in Counter(row for batch in batches for row in batch).items() if times > 1)


def _listed(numbers: Iterable[int], most: int = 6) -> str:
    """``1, 2, 3``, cut off where there are many."""
    named = [str(number) for number in numbers]
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")
