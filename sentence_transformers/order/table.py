"""An order report in words: plain text, and rich tables. Both say the same; only the latter needs rich."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentence_transformers.base.fingerprint import FEW_ROWS

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from sentence_transformers.base.report import EpochReport, OrderReport

REASONS = {
    "no_room": "no room: too many other rows hold the same values",
    "incomplete_batch": "too few for a full last batch",
    "incomplete_step": "too few for a whole last step of all processes",
    "past_the_end": "in batches beyond the length that the sampler states",
    "other_dataset_ended": "left when the shortest dataset ended",
    "not_drawn": "in no batch of the sampler",
}
"""Why rows sit out."""
_LABEL = 26  # columns of a terminal that labels get at least; longer ones go on in a second line


def headline(report: OrderReport) -> str:
    """What was looked at."""
    rows = f"{report.rows:,} rows"
    if len(report.datasets) > 1:
        rows += f" of {len(report.datasets)} datasets"
    processes = f"{report.world_size} process{'es' if report.world_size > 1 else ''} × {report.batch_size}"
    return f"{rows}, {report.batch_sampler}, {processes} rows a step"


def grid(report: OrderReport) -> list[tuple[str, list[str]]]:
    """A label, and what it is in each epoch; lines that say nothing are left out."""
    epochs = report.epochs
    lines = [
        ("steps", [f"{epoch.steps:,}" for epoch in epochs]),
        ("rows used", [f"{epoch.rows_used:,}" for epoch in epochs]),
        ("rows used more than once", [f"{epoch.rows_repeated:,}" for epoch in epochs]),
        ("rows sitting out", [f"{sum(epoch.rows_sitting_out.values()):,}" for epoch in epochs]),
    ]
    for reason, text in REASONS.items():
        counts = [epoch.rows_sitting_out.get(reason, 0) for epoch in epochs]
        if any(counts):
            lines.append((f"  {text}", [f"{count:,}" for count in counts]))
    label = "batches with a value twice"
    lines.append((label, [f"{epoch.batches_with_duplicates:,} of {epoch.batches:,}" for epoch in epochs]))
    if report.world_size > 1:
        label = "steps with a value twice, over all processes"
        lines.append((label, [f"{epoch.steps_with_duplicates:,} of {epoch.steps:,}" for epoch in epochs]))
    lines.append(("fingerprint", [epoch.fingerprint for epoch in epochs]))
    if len(epochs) > 1:
        lines.append(("order", [_novelty(epoch) for epoch in epochs]))
    return lines


def _novelty(epoch: EpochReport) -> str:
    return "new" if epoch.same_as is None else f"epoch {epoch.same_as} again"


def notes(report: OrderReport) -> list[str]:
    """What a user should know beside the figures."""
    said = []
    if report.frequent:
        values = ", ".join(f"{one.value} ({one.rows:,} rows)" for one in report.frequent)
        said.append(f"Most frequent values of {', '.join(report.columns)}: {values}.")
    else:
        said.append(f"No value of {', '.join(report.columns) or 'any column'} is in two rows.")
    if report.rows_in_no_epoch:
        said.append(f"{report.rows_in_no_epoch:,} rows are in none of these {len(report.epochs)} epochs.")
    if any(one.same_as is not None and one.rows_used > FEW_ROWS for one in report.epochs):
        said.append("An epoch repeats an earlier one's order: does the sampler follow the epoch (`set_epoch`)?")
    if report.epochless:
        said.append(
            f"{', '.join(report.epochless)} shuffles, but has no `set_epoch`: what a run draws is not foreseeable; "
            "these are the draws of this once."
        )
    if any(epoch.uneven_steps for epoch in report.epochs):
        said.append("In some steps a process has no batch: a run would wait there forever.")
    return said


def plain(report: OrderReport) -> str:
    """The report as text."""
    lines = [("", [f"epoch {epoch.epoch}" for epoch in report.epochs]), *grid(report)]
    label = max(len(name) for name, _ in lines)
    width = max(len(cell) for _, cells in lines for cell in cells)
    table = [f"{name:<{label}}" + "".join(f"  {cell:>{width}}" for cell in cells) for name, cells in lines]
    return "\n".join([headline(report), "", *table, "", *notes(report)])


def tables(report: OrderReport) -> RenderableType:
    """The report for rich."""
    from rich.console import Group
    from rich.text import Text

    said = [Text(f"{note}\n") for note in notes(report)]
    return Group(Text(headline(report), "bold"), _Epochs(report), *said)


@dataclass(frozen=True)
class _Epochs:
    """The figures as tables below one another, each of as many epochs as the terminal is wide enough for."""

    report: OrderReport

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        lines = [("", [f"epoch {epoch.epoch}" for epoch in self.report.epochs]), *grid(self.report)]
        widths = [max(map(len, cells)) for cells in zip(*(cells for _, cells in lines))]
        label = min(_LABEL, max(len(name) for name, _ in lines))
        for first, end in _blocks(widths, options.max_width - label - 2):
            yield _table([(name, cells[first:end]) for name, cells in lines])


def _blocks(widths: list[int], room: int) -> Iterator[tuple[int, int]]:
    """The first of each block of columns that fit into the room, with a gap of 3 before each, and the one after."""
    most = max(room // (max(widths) + 3), 1)
    blocks = -(-len(widths) // most)
    ends = [len(widths) * block // blocks for block in range(blocks + 1)]
    return itertools.pairwise(ends)


def _table(lines: list[tuple[str, list[str]]]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in lines[0][1]:
        table.add_column(name, justify="right", no_wrap=True)
    for name, cells in lines[1:]:
        style = "dim" if name.startswith(" ") else ""
        table.add_row(Text(name, style), *(Text(cell, _style(name, cell) or style) for cell in cells))
    return table


def _style(name: str, cell: str) -> str:
    if name == "fingerprint":
        return "cyan"
    return "bold red" if name == "order" and cell != "new" else ""
