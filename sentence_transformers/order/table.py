"""An order report as text, for a terminal of any width."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentence_transformers.order.batch_sizes import TIMES
from sentence_transformers.order.fingerprint import FEW_ROWS

if TYPE_CHECKING:
    from sentence_transformers.order.report import EpochReport, OrderReport

REASONS = {
    "no_room": "no room: too many other rows hold the same values",
    "incomplete_batch": "too few for a full last batch",
    "incomplete_step": "too few for a whole last step of all processes",
    "past_the_end": "in batches beyond the length that the sampler states",
    "other_dataset_ended": "left when the shortest dataset ended",
    "not_drawn": "in no batch of the sampler",
}
"""Why rows are left out."""
_GAP = 2  # spaces before a column
_LABEL = 28  # characters that a label gets at least, before it is wrapped

Line = tuple[str, list[str]]


def render(report: OrderReport, width: int | None = None) -> str:
    """
    The report as text.

    Args:
        report (OrderReport): What was found.
        width (int, optional): Characters of a line; epochs that do not fit go on below. Defaults to as many as needed.
    """
    lines = [("", [f"epoch {epoch.epoch}" for epoch in report.epochs]), *_lines(report)]
    cell = max(len(cell) for _, cells in lines for cell in cells) + _GAP
    longest = max(len(name) for name, _ in lines)
    label = longest if width is None else max(min(longest, width - cell * len(report.epochs)), min(_LABEL, longest))
    blocks = _blocks(len(report.epochs), 0 if width is None else (width - label) // cell)
    tables = ["\n".join(_rows(lines, first, end, label, cell)) for first, end in blocks]
    said = [headline(report), *tables, "\n".join(notes(report))]
    if width is not None:
        said[0], said[-1] = (
            "\n".join(textwrap.fill(line, width) for line in one.splitlines()) for one in (said[0], said[-1])
        )
    return "\n\n".join(said)


def _blocks(epochs: int, most: int) -> Iterator[tuple[int, int]]:
    """The first epoch of each table, and the one after its last; 0 for all in one."""
    count = -(-epochs // max(most, 1)) if most != 0 else 1
    return itertools.pairwise([epochs * block // count for block in range(count + 1)])


def _rows(lines: list[Line], first: int, end: int, label: int, cell: int) -> Iterator[str]:
    for name, cells in lines:
        indent = " " * (len(name) - len(name.lstrip()) + 2)
        head, *rest = textwrap.wrap(name, label, subsequent_indent=indent, drop_whitespace=False) or [""]
        yield f"{head:<{label}}" + "".join(f"{one:>{cell}}" for one in cells[first:end])
        yield from (line.rstrip() for line in rest)


def headline(report: OrderReport) -> str:
    """What was looked at."""
    rows = f"{report.rows:,} rows"
    if len(report.datasets) > 1:
        rows += f" of {len(report.datasets)} datasets"
    processes = f"{report.world_size} process{'es' if report.world_size > 1 else ''} × {report.batch_size}"
    return f"{rows}, {report.batch_sampler}, {processes} rows a step"


def _lines(report: OrderReport) -> list[Line]:
    """A label, and what it is in each epoch; lines that say nothing are left out."""
    epochs = report.epochs
    lines = [
        ("steps", [f"{epoch.steps:,}" for epoch in epochs]),
        ("rows used", [f"{epoch.rows_used:,}" for epoch in epochs]),
        ("rows used more than once", [f"{epoch.rows_repeated:,}" for epoch in epochs]),
        ("rows left out", [f"{sum(epoch.rows_left_out.values()):,}" for epoch in epochs]),
    ]
    for reason, text in REASONS.items():
        counts = [epoch.rows_left_out.get(reason, 0) for epoch in epochs]
        if any(counts):
            lines.append((f"  {text}", [f"{count:,}" for count in counts]))
    lines += _duplicates(report)
    lines.append(("fingerprint", [epoch.fingerprint for epoch in epochs]))
    if len(epochs) > 1:
        lines.append(("order", [_novelty(epoch) for epoch in epochs]))
    return lines


def _duplicates(report: OrderReport) -> list[Line]:
    epochs, several = report.epochs, report.world_size > 1
    lines = [("batches with a value twice", [f"{one.batches_with_duplicates:,} of {one.batches:,}" for one in epochs])]
    if several:
        cells = [f"{one.steps_with_duplicates:,} of {one.steps:,}" for one in epochs]
        lines.append(("steps with a value twice, over all processes", cells))
    if report.has_negatives:
        cells = [f"{one.batches_with_false_negatives:,} of {one.batches:,}" for one in epochs]
        lines.append(("batches with a false negative", cells))
    if report.has_negatives and several:
        cells = [f"{one.steps_with_false_negatives:,} of {one.steps:,}" for one in epochs]
        lines.append(("steps with a false negative, over all processes", cells))
    return lines


def _novelty(epoch: EpochReport) -> str:
    return "new" if epoch.same_as is None else f"epoch {epoch.same_as} again"


def _fitting(report: OrderReport) -> str:
    """The batch sizes that planned batches can have, with every row in them."""
    names = {"false_negatives": "without a false negative", "duplicates": "without a value twice"}
    if not report.has_negatives:
        del names["false_negatives"]
    most = TIMES * report.batch_size
    sizes = {0: "at none", most: f"up to {most:,} and perhaps more"}
    said = [f"{sizes.get(size := report.fitting[rule], f'up to {size:,}')} {text}" for rule, text in names.items()]
    shared = f" (of one process; {report.world_size} take a step)" if report.world_size > 1 else ""
    return f"Batch sizes{shared} at which planned batches have room for every row: {', '.join(said)}."


def notes(report: OrderReport) -> list[str]:
    """What a user should know beside the figures."""
    said = []
    if report.frequent:
        values = ", ".join(f"{one.value} ({one.rows:,} rows)" for one in report.frequent)
        said.append(f"Most frequent values of {', '.join(report.columns)}: {values}.")
        said.append(_fitting(report))
    else:
        said.append(f"No value of {', '.join(report.columns) or 'any column'} is in two rows.")
    if report.rows_in_no_epoch:
        said.append(f"{report.rows_in_no_epoch:,} rows are in none of these {len(report.epochs)} epochs.")
    if any(one.same_as is not None and one.rows_used > FEW_ROWS for one in report.epochs):
        said.append("An epoch repeats an earlier one's order: does the sampler follow the epoch (`set_epoch`)?")
    if report.epochless:
        said.append(
            f"{', '.join(report.epochless)} cannot be told the epoch: what a run draws is not foreseeable; these are "
            "the draws of this once."
        )
    if any(epoch.uneven_steps for epoch in report.epochs):
        said.append("In some steps a process has no batch: a run would wait there forever.")
    return said
