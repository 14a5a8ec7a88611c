"""Whether the processes of a run agree.

Guarantee: all processes see the same records, so that :func:`check_agreement` raises on all of them or on none.

Cost: one collective of a few hundred bytes; none on a single process, and none where objects cannot be gathered (XLA).
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object


class RanksDisagree(RuntimeError):
    """Processes that share one plan have different ones."""


def told(record: dict[str, Any], accelerator: Accelerator) -> list[dict[str, Any]]:
    """
    Tell all processes, and be told by them.

    Args:
        record: What this process says.
        accelerator (Accelerator): Says how many processes there are.

    Returns:
        list: What each process says, by rank.
    """
    if accelerator.num_processes == 1 or accelerator.distributed_type == DistributedType.XLA:
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


def check_agreement(records: list[dict[str, Any]]) -> None:
    """
    See that all processes, which share one plan, say the same.

    Args:
        records: What each process says, by rank.

    Raises:
        RanksDisagree: If they do not. As all see the same records, it is raised on all of them.
    """
    lines = disagreements(records)
    if lines:
        listed = "\n".join(f"  - {line}" for line in lines)
        raise RanksDisagree(
            "The processes do not share one order of batches, so that rows would be lost or repeated, and processes "
            f"may wait for each other for ever. They disagree about\n{listed}\n"
            "Load and shuffle the data in the same way on every process, with the same seed and arguments. If each "
            'process is meant to have its own, set order_guard="off" in the training arguments.'
        )
