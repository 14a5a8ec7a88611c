"""Whether all rows fit, and what to do where they do not."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from transformers.utils import logging

from sentence_transformers.planned.duplicates import Duplicates
from sentence_transformers.planned.plan import fits
from sentence_transformers.planned.value_hashes import shown_value

if TYPE_CHECKING:
    from sentence_transformers.planned.plan import Capacity
    from sentence_transformers.planned.sampler import PlannedNoDuplicatesBatchSampler

logger = logging.get_logger(__name__)

_NAMED = 3  # values that a message names


def check_share(max_skipped: float) -> None:
    """See that ``max_skipped`` is a share.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(max_skipped, bool) or not isinstance(max_skipped, (int, float)) or not 0 <= max_skipped <= 1:
        raise ValueError(f"max_skipped is a share of the rows, from 0 to 1, got {max_skipped!r}; for 5 % pass 0.05.")


def largest_batch_size(duplicates: Duplicates, most: int, batches_per_step: int = 1) -> int:
    """The largest batch size up to ``most`` for which a brief search finds a place for every row; 0 if there is none.

    It is found by planning, at sizes chosen by bisection, hence within seconds perhaps a little too small.

    Args:
        duplicates: the values that keep rows apart.
        most: the largest size that is tried.
        batches_per_step: see ``Capacity``.
    """
    low, high = 0, min(most, duplicates.rows)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(duplicates, middle, batches_per_step) else (low, middle - 1)
    return low


def check_capacity(sampler: PlannedNoDuplicatesBatchSampler, held: Capacity) -> None:
    """Say how many rows find no place, and what can be done.

    Raises:
        ValueError: If they are more than the sampler may skip.
    """
    if held.planned < sampler.num_processes and not sampler.drop_last:
        raise ValueError(
            f"{held.planned} rows without duplicates cannot be shared by {sampler.num_processes} processes; each "
            "needs a row at least. Train on fewer processes, or on more rows."
        )
    if not len(held):
        logger.warning_once(
            f"A dataset of {held.rows} rows, with columns {list(sampler.rule.columns)}, has no batch: it does not "
            f"fill one of {sampler.rows_per_step} rows, and the rows of an unfilled one are left out (drop_last)."
        )
        return
    skipped = held.skipped
    if not skipped:
        return
    shared = f"of {sampler.rows_per_step}" + (" over all processes" if sampler.num_processes > 1 else "")
    said = (
        f"{skipped} of {held.rows} rows ({skipped / held.rows:.2%}) find no place in batches {shared}, because too "
        f"many rows share values, most of all {_frequent(sampler)}."
    )
    if skipped <= sampler.max_skipped * held.rows:
        logger.warning_once(f"{said} They are left out, others in each epoch.")
        return
    raise ValueError(f"{said}\n{_ways_on(sampler, held, skipped)}")


def _ways_on(sampler: PlannedNoDuplicatesBatchSampler, held: Capacity, skipped: int) -> str:
    processes = held.batches_per_step if held.batches_per_step > 1 else sampler.num_processes
    unit = sampler.num_processes if held.batches_per_step == 1 else 1
    size = largest_batch_size(sampler.duplicates, held.batch_size, held.batches_per_step) // unit
    fitting = f"a batch size of {size} a process" if processes > 1 else f"a batch size of {size}"
    rules = []
    if sampler.rule.strong > sampler.rule.firm:
        rules.append("strict=False")
    if sampler.across_devices and sampler.num_processes > 1:
        rules.append("across_devices=False")
    if sampler.rule.firm > 1:
        rules.append("negative_columns with the columns whose values may repeat")
    ways = [f"{fitting}, with which all rows fit"] if size else []
    ways += [f"another rule: {' or '.join(rules)}"] if rules else []
    ways.append(f"max_skipped={ceil(100 * skipped / held.rows) / 100:g}, to leave them out, others in each epoch")
    return f"Use {'; or '.join(ways)}."


def _frequent(sampler: PlannedNoDuplicatesBatchSampler) -> str:
    """The values that are strong in most rows, with their numbers of rows."""
    duplicates = sampler.duplicates
    numbers = np.argsort(-duplicates.strong_sizes, kind="stable")[:_NAMED]
    starts, members = duplicates.starts, duplicates.members
    return ", ".join(
        f"{shown_value(sampler.dataset, sampler.rule.columns, members[starts[n] : starts[n] + 2].tolist())} "
        f"({starts[n + 1] - starts[n]} rows)"
        for n in numbers.tolist()
    )
