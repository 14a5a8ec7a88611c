"""The batch sizes at which every row finds a place in an epoch of planned batches.

Two rules are looked at: no false negative, as a loss counts them, and no value twice. Of several processes, the rows
of a step are kept apart.

Guarantee: at a size that is named, all rows were planned by :mod:`~sentence_transformers.planned`, in each dataset.
That none fits at a larger one is not said: the planner's search is bounded.

Cost: a plan of an epoch for each rule and size tried. These are the run's size, doubled or halved while that helps, up
to ``TIMES`` times the run's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentence_transformers.order.statistics import Hashes

if TYPE_CHECKING:
    from sentence_transformers.planned.duplicates import Duplicates

TIMES = 16


def fitting_batch_sizes(datasets: list[Hashes], batch_size: int, world_size: int) -> dict[str, int]:
    """
    The largest batch size of one process that was found to fit, by rule: ``false_negatives`` and ``duplicates``.

    Args:
        datasets: The hashes of each dataset, of shape (rows, columns).
        batch_size: That of one process of the run.
        world_size: The number of processes.

    Returns:
        dict: The sizes; 0 where none fits, and ``TIMES * batch_size`` where it may be larger.
    """
    from sentence_transformers.planned.rule import POSITIVES, kept_apart

    apart = _largest([kept_apart(one) for one in datasets], batch_size, world_size)
    if all(one.shape[1] <= POSITIVES for one in datasets):  # both rules are one
        return {"false_negatives": apart, "duplicates": apart}
    strictly = [kept_apart(one, strong=None) for one in datasets]
    return {"false_negatives": apart, "duplicates": _largest(strictly, batch_size, world_size)}


def _largest(datasets: list[Duplicates], batch_size: int, world_size: int) -> int:
    from sentence_transformers.planned.plan import fits

    def all_fit(size: int) -> bool:
        return all(fits(one, size * world_size) for one in datasets)

    size = batch_size
    while size and not all_fit(size):
        size //= 2
    while batch_size <= size < TIMES * batch_size and all_fit(2 * size):
        size *= 2
    return size
