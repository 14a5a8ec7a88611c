"""Whether the processes of a run agree.

Guarantee: all processes see the same records, so that they come to the same end.

Cost: one collective of a few hundred bytes; none on a single process, and none on XLA, where objects cannot be
gathered.
"""

from __future__ import annotations

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType, gather_object


def all_gather(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process says, by rank; every process has to call it."""
    state = PartialState()
    if state.num_processes == 1 or state.distributed_type == DistributedType.XLA:
        return [record]
    return list(gather_object([record]))


def disagreements(records: list[dict[str, Any]]) -> list[str]:
    """
    What processes say differently, one line each, with who says what.

    Args:
        records: What each process says, by rank. None, or nothing, agrees with everything.
    """
    lines = []
    for name in dict.fromkeys(name for record in records for name in record):
        ranks: dict[str, list[int]] = {}
        for rank, record in enumerate(records):
            if record.get(name) is not None:
                ranks.setdefault(str(record[name]), []).append(rank)
        if len(ranks) > 1:
            said = (f"{value} on {_named(on)}" for value, on in ranks.items())
            lines.append(f"{name}: {', '.join(said)}")
    return lines


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"
