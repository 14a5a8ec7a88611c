"""What a run read, step by step: reading the records of `recorder.py` and judging one order by another.

An order maps each optimizer step to one list of row numbers per rank; all comparisons are of whole lists, never of
sorted ones. Everything here is a pure function of the records.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Order = dict[int, list[list[int]]]


@dataclass(frozen=True)
class Record:
    """One run: the package that ran, the order it read, and what its evaluations measured."""

    package: Path
    version: str
    max_steps: int
    order: Order
    metrics: list[dict[str, float]]


@dataclass(frozen=True)
class Check:
    """Whether one promise held, and the figures behind that."""

    promise: str
    held: bool
    detail: str


def read_record(folder: Path, world_size: int) -> Record:
    """Read one file per rank. A last step that not every rank wrote down, as after a kill, is left out."""
    ranks = [_lines(folder / f"rank{rank}.jsonl") for rank in range(world_size)]
    steps = [{line["step"]: line["rows"] for line in lines if "step" in line} for lines in ranks]
    common = sorted(set.intersection(*map(set, steps)))
    if not common or common != list(range(common[0], common[-1] + 1)):
        raise ValueError(f"The record in {folder} holds no unbroken run of steps: {common}")
    return Record(
        package=Path(ranks[0][0]["package"]),
        version=ranks[0][0]["version"],
        max_steps=next(line["max_steps"] for line in ranks[0] if "step" in line),
        order={step: [rows[step] for rows in steps] for step in common},
        metrics=[line["metrics"] for line in ranks[0] if "metrics" in line],
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def joined(before: Order, after: Order) -> Order:
    """What the model was trained on: the interrupted run up to the checkpoint, then the resumed one."""
    checkpoint = min(after)
    return {step: batch for step, batch in before.items() if step < checkpoint} | after


def rows_of(order: Order, steps: range) -> list[list[int]]:
    """The rows of each of `steps`, rank after rank."""
    return [[row for batch in order[step] for row in batch] for step in steps]


def agreeing(order: Order, plan: Order, steps: range) -> int:
    """The number of `steps` at which every rank read what the plan says."""
    return sum(order.get(step) == plan.get(step) is not None for step in steps)


def replayed(order: Order, per_epoch: int, epoch: int) -> list[int]:
    """The steps of `epoch` at which the ranks read what they had read at that place of an earlier epoch."""
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    return [
        step for step in steps if any(order[step] == order[step - back * per_epoch] for back in range(1, epoch + 1))
    ]


def tally(order: Order, per_epoch: int, epoch: int, rows: int) -> tuple[int, int]:
    """Rows read more than once, and rows never read, in `epoch` of a dataset of `rows` rows."""
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    seen = Counter(row for step in steps for batch in order[step] for row in batch)
    return sum(count > 1 for count in seen.values()), rows - len(seen)


def judge(plan: Order, run: Order, checkpoint: int, per_epoch: int, rows: int) -> list[Check]:
    """Judge a run that was interrupted and resumed at step `checkpoint` by the uninterrupted one.

    Args:
        plan (Order): What the same stack reads when nothing interrupts it.
        run (Order): What was read up to the checkpoint and, from there on, after the resume.
        checkpoint (int): The first step after the resume.
        per_epoch (int): Steps in an epoch.
        rows (int): Rows in the dataset.
    """
    epoch = checkpoint // per_epoch
    rest, later = range(checkpoint, (epoch + 1) * per_epoch), range((epoch + 1) * per_epoch, len(plan))
    repeats = {number: len(replayed(run, per_epoch, number)) for number in range(1, len(plan) // per_epoch)}
    told = [f"{count} steps of epoch {number + 1} repeat" for number, count in repeats.items() if count]
    shared = sum(len(set().union(*batches)) < sum(map(len, batches)) for batches in run.values())
    same, same_later = agreeing(run, plan, rest), agreeing(run, plan, later)
    tallied, planned = (tally(order, per_epoch, epoch, rows) for order in (run, plan))
    return [
        Check("Every epoch has an order of its own", not told, "; ".join(told) or "no step repeats"),
        Check("The ranks never share a row in a step", not shared, f"{shared} of {len(run)} steps share one"),
        Check(f"Epoch {epoch + 1}, resumed, goes on as planned", same == len(rest), f"{same} of {len(rest)} steps"),
        Check(f"Epoch {epoch + 1} reads each row once", tallied == planned, _tallied(tallied, planned)),
        Check("Later epochs are as planned", same_later == len(later), f"{same_later} of {len(later)} steps"),
    ]


def _tallied(found: tuple[int, int], planned: tuple[int, int]) -> str:
    if found == planned:
        return f"{found[0]} read twice, {found[1]} sit out, as planned"
    return f"{found[0]} read twice, {found[1]} never"
