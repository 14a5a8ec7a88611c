"""Fewer batches, for rows that still clash when the swaps are used up.

Guarantee: after ``settle`` no batch holds a value twice and every batch but the last is full; rows without a place are
outside. Nothing says that they are as few as possible: that is graph colouring.

Method: the batches with most clashing rows are dissolved, 1, 2, 4, ... at a time. Their rows go outside, where nothing
clashes, and the clashing rows of the other batches change places with rows outside that fit. In the end the rows
outside that agree with each other make the last batch.

Cost: at most log2(batches) + 1 searches, each bounded like an epoch's own.

Known bias: batches are dissolved by need, not at random. The caller shuffles the batches.
"""

from __future__ import annotations

import numpy as np

from sentence_transformers.base.draws import Draws
from sentence_transformers.base.placing import agreeing
from sentence_transformers.base.seating import Rows, Seating


def settle(seating: Seating, clashing: Rows, draws: Draws) -> Seating:
    """A seating without clashes, of at most as many batches.

    Args:
        seating: seating whose only clashes are those of ``clashing``.
        clashing: rows to move; the others do not clash.
        draws: random choices.
    """
    seating = _without_batches(seating, [])
    dissolved = 1
    while len(clashing := clashing[seating.batch_of(clashing) < seating.batches]):
        counts = np.bincount(seating.batch_of(clashing), minlength=seating.batches)
        seating = _without_batches(seating, np.argsort(-counts, kind="stable")[:dissolved].tolist())
        clashing = seating.part(clashing[seating.batch_of(clashing) < seating.batches], draws, outside=True)
        dissolved *= 2
    return _with_last_batch(seating, draws)


def _without_batches(seating: Seating, dissolved: list[int]) -> Seating:
    """Dissolve batches, and the last one if it is unfilled."""
    size = seating.batch_size
    batches = np.full((seating.batches, size), -1, dtype=np.int32)
    inside = seating.order[: batches.size]
    batches.reshape(-1)[: len(inside)] = inside
    keep = np.asarray((batches >= 0).all(axis=1))
    keep[dissolved] = False
    loose = batches[~keep].reshape(-1)
    order = [batches[keep].reshape(-1), loose[loose >= 0], seating.order[seating.batches * size :]]
    return Seating(seating.values, np.concatenate(order), size, int(np.count_nonzero(keep)))


def _with_last_batch(seating: Seating, draws: Draws) -> Seating:
    """Make a last, unfilled batch of rows outside."""
    end = seating.batches * seating.batch_size
    waiting = seating.order[end:].copy()
    draws.shuffle(waiting)
    last = agreeing(seating.values, seating.batch_size - 1, waiting)
    gap = np.full(seating.batch_size - len(last) if len(last) else 0, -1, dtype=np.int32)
    order = np.concatenate([seating.order[:end], last, gap, waiting[~np.isin(waiting, last)]])
    return Seating(seating.values, order, seating.batch_size, seating.batches + (len(last) > 0))
