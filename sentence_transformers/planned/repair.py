"""Moves of rows between batches until no two rows of a batch conflict; rows that find no place are left out.

Where a random row fits many batches, ``swap_rounds`` makes many random swaps at a time that leave both rows without a
conflict. If nothing moves any more, a row takes the place of one that then looks for another itself, or one that it
meets is moved to anywhere. Where rows meet others in most batches, and for what the swaps leave, ``search`` looks for
the best places. In the end ``leave_out`` dissolves batches, 1, 2, 4, ... up to an eighth at a time, those with most
conflicting rows first; the conflicting rows of the others change places with rows left out, and of these, those that
agree make the last batch.

Guarantee: batches keep their numbers of rows until some are dissolved. After that no two rows of a batch conflict, and
every batch but the last is full. Nothing says that as few rows as possible are left out: that is graph colouring into
parts of equal size, for which no quick answer is known.

Cost: a round of swaps is linear in the conflicting rows and the strong holders of their values, with at most
``_ROUNDS`` rounds; for the search see there.

Known bias: batches are dissolved by need, not at random. The caller shuffles the batches.
"""

from __future__ import annotations

import numpy as np

from sentence_transformers.planned.assignment import agreeing
from sentence_transformers.planned.conflicts import Assignment, Rows
from sentence_transformers.planned.duplicates import IntArray
from sentence_transformers.planned.rng import Rng
from sentence_transformers.planned.search import density, first_fit, fits_tables, tabu_search

_PROPOSALS = 1 << 11
_BUDGET = 8
_ROUNDS = 256
_KICKS, _FEW = 8, 64
_PATIENCE = 2
_EXCHANGES = 16
_DENSE, _DENSE_IF_FEW, _MANY_ROWS = 0.7, 0.3, 1 << 16  # conflicts with a random batch
_LONG, _SHORT = 1000, 100  # rounds of the tabu search without progress
_HOPELESS = 0.25  # share of the rows that conflict before that search; none was seen to succeed above 0.1


def repaired(assignment: Assignment, rng: Rng, batches_per_step: int = 1) -> Assignment:
    """An assignment without conflicts, of at most as many batches.

    Args:
        assignment: the first one; it is changed.
        rng: random choices.
        batches_per_step: the number of full batches stays a multiple of it.
    """
    assignment, conflicting = searched(assignment, rng)
    return leave_out(assignment, conflicting, rng, batches_per_step) if len(conflicting) else assignment


def searched(assignment: Assignment, rng: Rng, briefly: bool = False) -> tuple[Assignment, Rows]:
    """An assignment to as many batches, and the rows that still conflict.

    Args:
        assignment: the first one; it is changed.
        rng: random choices.
        briefly: give up soon where much speaks against success.
    """
    if _is_dense(assignment):
        assignment = first_fit(assignment, rng)
    return assignment, _moved(assignment, assignment.conflicting(), rng, briefly=briefly)


def _is_dense(assignment: Assignment) -> bool:
    """Whether a search for the best places is quicker than random swaps, of which few fit."""
    least = _DENSE if assignment.duplicates.rows > _MANY_ROWS else _DENSE_IF_FEW
    return fits_tables(assignment) and density(assignment) > least


def _moved(assignment: Assignment, conflicting: Rows, rng: Rng, left_out: bool = False, briefly: bool = False) -> Rows:
    """Move rows by both searches, in the order that suits them; returns the rows that still conflict."""
    searchable = fits_tables(assignment)
    if not _is_dense(assignment):
        conflicting = swap_rounds(assignment, conflicting, rng, left_out)
    if briefly and len(conflicting) > _HOPELESS * len(assignment.order):
        return conflicting
    if searchable and len(conflicting):
        return tabu_search(assignment, rng, _SHORT if left_out or briefly else _LONG)
    return conflicting


def swap_rounds(assignment: Assignment, conflicting: Rows, rng: Rng, left_out: bool = False) -> Rows:
    """Swap rows at random until none conflicts or the proposals are used up; returns the rows that still conflict.

    Args:
        assignment: is changed.
        conflicting: rows to move; all others agree.
        rng: random choices.
        left_out: in every second round change places with rows left out alone.
    """
    rows, stalled, kicks = assignment.duplicates.rows, 0, _KICKS
    left = _BUDGET * rows + 8 * _PROPOSALS
    for number in range(1, _ROUNDS + 1):
        if not len(conflicting) or left <= 0:
            break
        times = max(1, min(_PROPOSALS, 4 * rows) // len(conflicting), min(rows // 16 // len(conflicting), 32))
        left -= times * len(conflicting)
        slots = _proposed_slots(assignment, np.tile(conflicting, times), number, rng, left_out and number % 2 == 0)
        before, walk = len(conflicting), stalled >= _PATIENCE
        conflicting = _swap_round(assignment, conflicting, slots, walk)
        stalled = 0 if walk or len(conflicting) < before else stalled + 1
        if stalled == _PATIENCE and kicks and len(conflicting) <= _FEW:
            conflicting, kicks = _kicked(assignment, conflicting, rng), kicks - 1
    return conflicting


def _proposed_slots(assignment: Assignment, rows: Rows, number: int, rng: Rng, left_out: bool) -> IntArray:
    """A random slot for each row; in odd rounds that of a row with the same value, if it is in many batches."""
    drawn = rng.below(2**62, len(rows))
    first = min(assignment.planned, len(assignment.order) - 1) if left_out else 0
    slots = first + drawn % (len(assignment.order) - first)
    if number % 2:
        duplicates = assignment.duplicates
        numbers = duplicates.row_values[rows, : duplicates.strong_columns].max(axis=1)
        sizes = duplicates.sizes(numbers)
        dense = np.flatnonzero((numbers >= 0) & (sizes * 4 > assignment.batches))
        peers = duplicates.starts[numbers[dense]] + drawn[dense] % sizes[dense]
        slots[dense] = assignment.slot_of[duplicates.members[peers]]
    return slots


def _swap_round(assignment: Assignment, conflicting: Rows, slots: IntArray, walk: bool) -> Rows:
    """Swap each conflicting row with that on one of its ``slots``, where this fits; returns those that conflict then.

    In a walk the partner need not fit: it conflicts in the other's stead, and is the next to look for a place.
    """
    rows = np.tile(conflicting, len(slots) // len(conflicting))
    partners = assignment.order[slots]
    here, there = assignment.batch_of[rows], assignment.batch_of[partners]
    fits = (here != there) & ~np.isin(partners, conflicting)
    for mover, target, other in ((rows, there, partners), (partners, here, rows))[: 1 if walk else 2]:
        ask = np.flatnonzero(fits & (target < assignment.batches))
        fits[ask] = ~assignment.would_conflict(mover[ask], target[ask], other[ask])
    chosen = np.flatnonzero(fits)
    chosen = chosen[np.unique(rows[chosen], return_index=True)[1]]
    chosen = chosen[np.unique(partners[chosen], return_index=True)[1]]
    assignment.swap(rows[chosen], partners[chosen])
    touched = assignment.inside(np.concatenate([conflicting, partners[chosen]]))
    return np.sort(touched[assignment.would_conflict(touched, assignment.batch_of[touched], touched)])


def _kicked(assignment: Assignment, conflicting: Rows, rng: Rng) -> Rows:
    """Move a row that each of the conflicting ones meets to anywhere; returns the rows that conflict then."""
    for row in conflicting.tolist():
        met = assignment.met_by(row)
        if len(met):
            slot, which = rng.below(assignment.planned, 1), rng.below(len(met), 1)
            if assignment.order[slot[0]] != met[which[0]]:
                assignment.swap(met[which], assignment.order[slot])
    return assignment.conflicting()


def leave_out(assignment: Assignment, conflicting: Rows, rng: Rng, batches_per_step: int = 1) -> Assignment:
    """An assignment without conflicts, of at most as many batches.

    Args:
        assignment: its only conflicts are those of ``conflicting``.
        conflicting: rows to move.
        rng: random choices.
        batches_per_step: the number of full batches stays a multiple of it.
    """
    assignment = _without_batches(assignment, np.empty(0, np.int64))
    dissolved = 1
    while len(conflicting := assignment.inside(conflicting)):
        counts = np.bincount(assignment.batch_of[conflicting], minlength=assignment.batches)
        assignment = _without_batches(assignment, np.argsort(-counts, kind="stable")[:dissolved])
        conflicting = _moved(assignment, assignment.inside(conflicting), rng, left_out=True)
        dissolved = min(2 * dissolved, max(assignment.full // 8, 1))
    assignment = _without_batches(assignment, np.arange(assignment.full % batches_per_step))
    return _with_last_batch(assignment, assignment.batch_size * batches_per_step - 1, rng)


def exchange_left_out(assignment: Assignment, rng: Rng) -> None:
    """Give rows that are left out the places of others where they fit, at random."""
    waiting = assignment.order[assignment.planned :].copy()
    slots = rng.below(2**62, len(waiting) * _EXCHANGES) % assignment.planned
    for _ in range(_EXCHANGES):
        rng.shuffle(waiting)
        slots, asked = slots[len(waiting) :], slots[: len(waiting)]
        partners = assignment.order[asked]
        fits = ~assignment.would_conflict(waiting, assignment.batch_of[partners], partners)
        fits &= assignment.batch_of[waiting] == assignment.batches
        chosen = np.flatnonzero(fits)
        # One a batch, so that those exchanged at a time do not meet.
        chosen = chosen[np.unique(assignment.batch_of[partners[chosen]], return_index=True)[1]]
        assignment.swap(waiting[chosen], partners[chosen])


def _without_batches(assignment: Assignment, dissolved: IntArray) -> Assignment:
    """Dissolve full batches, and the last one if it is unfilled."""
    size, full = assignment.batch_size, assignment.full
    keep = np.ones(full, dtype=bool)
    keep[dissolved] = False
    batches = assignment.order[: full * size].reshape(full, size)
    order = [batches[keep].reshape(-1), batches[~keep].reshape(-1), assignment.order[full * size :]]
    return Assignment(assignment.duplicates, np.concatenate(order), size, int(np.count_nonzero(keep)), 0)


def _with_last_batch(assignment: Assignment, most: int, rng: Rng) -> Assignment:
    """Make a last, unfilled batch of rows left out, ``most`` at most."""
    end = assignment.planned
    waiting = assignment.order[end:].copy()
    rng.shuffle(waiting)
    last = agreeing(assignment.duplicates, most, waiting)
    order = np.concatenate([assignment.order[:end], last, waiting[~np.isin(waiting, last)]])
    return Assignment(assignment.duplicates, order, assignment.batch_size, assignment.full, len(last))
