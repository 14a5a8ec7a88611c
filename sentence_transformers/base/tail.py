"""The last step of an epoch, when several processes share each planned batch: every process needs a row.

Guarantee: a last batch of fewer rows than processes is filled up to one row each from the batch before it, without a
duplicate; all other batches stay as planned. Where the rows that move cannot avoid a duplicate, rows of the last batch
sit out in their place, so that the number of batches stays the same. With one row a process, no batch can give rows
away: such a last batch is left out, in every epoch. How many rows move depends on the number of processes, so that
the last two steps, and no others, are not the same on another number of them.

Cost: one look at the values of two batches, at most once for each row of the last one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sentence_transformers.base.planning import Capacity, Plan
from sentence_transformers.base.repeats import RepeatedValues

Rows = npt.NDArray[np.int32]


def steps_of(capacity: Capacity, num_processes: int) -> int:
    """
    The number of batches of which each process gets a row or more.

    Raises:
        ValueError: If there are fewer rows than processes.
    """
    if num_processes > 1 and 0 < capacity.planned < num_processes:
        raise ValueError(
            f"{capacity.planned} rows without duplicates cannot be shared by {num_processes} processes; each needs a "
            "row at least. Train on fewer processes, or on more rows."
        )
    return capacity.full + (capacity.tail >= num_processes or _is_lent_to(capacity, num_processes))


def last_batches(plan: Plan, capacity: Capacity, values: RepeatedValues, num_processes: int) -> list[Rows]:
    """The last two batches of the plan, as the processes can share them; empty if they can as they are."""
    if not _is_lent_to(capacity, num_processes):
        return []
    lender, tail = plan.batch(capacity.full - 1), plan.batch(capacity.full)
    for kept in range(len(tail), -1, -1):
        wanted = num_processes - kept
        free = ~_share_values(values, lender, tail[:kept])
        if np.count_nonzero(free) >= wanted:
            moving = np.flatnonzero(free)[-wanted:]
            return [np.delete(lender, moving), np.concatenate([tail[:kept], lender[moving]])]
    raise AssertionError("a batch of two rows a process has enough rows to give away")


def _is_lent_to(capacity: Capacity, num_processes: int) -> bool:
    """Whether the last batch is too short for the processes, and the one before it long enough for both."""
    return 0 < capacity.tail < num_processes and capacity.full > 0 and capacity.batch_size >= 2 * num_processes


def _share_values(values: RepeatedValues, rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
    """Of each row, whether it shares a value with one of the others."""
    taken = values.row_values[others]
    return np.asarray(np.isin(values.row_values[rows], taken[taken >= 0]).any(axis=1))
