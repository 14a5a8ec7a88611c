"""What was measured, as data: JSON to keep and compare, and the README's table made from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from conformance.cells import CRASHED, HANGS, NOT_APPLICABLE, PROPERTIES, RESUMES, RIGHT, WRONG, Cell, Row
from conformance.stack import Stack

FOLDER = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
COLUMNS = ("3.3.1", "5.1.2", "6.2.0", "6.2.0+epoch.2")
"""The stacks of the README's table."""
BEGIN, END = "<!-- made by `python -m conformance readme` from conformance/results -->", "<!-- end -->"
FORMAT = 1


@dataclass(frozen=True)
class Results:
    """The rows measured on one stack, and the seconds that they took."""

    stack: Stack
    rows: tuple[Row, ...]
    seconds: float = 0.0

    def to_json(self) -> str:
        """As text to keep, ending with a line end."""
        scenarios = {
            row.name: {
                "title": row.title,
                "seconds": round(row.seconds, 1),
                "cells": {name: {"state": cell.state, "detail": cell.detail} for name, cell in row.cells.items()},
            }
            for row in self.rows
        }
        kept = {"format": FORMAT, "stack": asdict(self.stack), "seconds": round(self.seconds), "scenarios": scenarios}
        return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """
        Read what :meth:`to_json` wrote.

        Raises:
            ValueError: If it was written in another format.
        """
        kept = json.loads(text)
        if kept.get("format") != FORMAT:
            raise ValueError(f"the results have format {kept.get('format')!r}, not {FORMAT}: measure them anew")
        rows = [
            Row(
                name,
                row["title"],
                {property_: Cell(**cell) for property_, cell in row["cells"].items()},
                row["seconds"],
            )
            for name, row in kept["scenarios"].items()
        ]
        return cls(Stack(**kept["stack"]), tuple(rows), kept["seconds"])

    def cells(self) -> dict[tuple[str, str], Cell]:
        """The cells, by scenario and property."""
        return {(row.name, name): cell for row in self.rows for name, cell in row.cells.items()}

    def status(self) -> int:
        """0 if everything is right, 1 if something is not, 2 if nothing ran."""
        states = {cell.state for cell in self.cells().values()}
        if not states & {RIGHT, WRONG}:
            return 2
        return 1 if states - {RIGHT, NOT_APPLICABLE} else 0


def stored(release: str) -> Results:
    """The results kept of a stack, by its version of sentence-transformers."""
    return Results.from_json((FOLDER / f"{release}.json").read_text("utf-8"))


def forked(release: str) -> Results:
    """The results kept of the fork of a release."""
    (path,) = FOLDER.glob(f"{release}+*.json")
    return stored(path.stem)


def store(results: Results, scenarios: Sequence[str], folder: Path = FOLDER) -> Path:
    """
    Keep the results of a stack; rows that were not measured this time stay as they are.

    Args:
        results: What was measured.
        scenarios: The names of all scenarios, in their order; rows of others are dropped.
        folder: Where results are kept.

    Raises:
        ValueError: If the rows that would stay were measured on another stack.
    """
    path = folder / f"{results.stack.release}.json"
    if {row.name for row in results.rows} < set(scenarios):
        kept = Results.from_json(path.read_text("utf-8"))
        if kept.stack.versions != results.stack.versions:
            raise ValueError(
                f"{path.name} was measured on {kept.stack}, not on {results.stack}: measure all scenarios anew"
            )
        rows = {row.name: row for row in (*kept.rows, *results.rows)}
        results = replace(kept, rows=tuple(rows[name] for name in scenarios))
    path.write_text(results.to_json(), "utf-8")
    return path


def markdown(results: Results) -> str:
    """Scenarios by properties."""
    lines = [f"| | {' | '.join(PROPERTIES)} |", f"|---|{':-:|' * len(PROPERTIES)}"]
    for row in results.rows:
        cells = [symbol(row.cells.get(name, Cell(NOT_APPLICABLE))) for name in PROPERTIES]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def symbol(cell: Cell) -> str:
    """A cell in a character, or in a word where it did not run to its end."""
    return {RIGHT: "✓", WRONG: "✗", CRASHED: "crash", HANGS: "hang", NOT_APPLICABLE: "–"}[cell.state]


def readme_table(columns: Sequence[Results]) -> str:
    """Scenarios by stacks: what of each is wrong. The rows are those of the last column."""
    heads = [_head(results) for results in columns]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{':-:|' * len(heads)}"]
    for row in columns[-1].rows:
        found = [{other.name: other for other in results.rows}.get(row.name) for results in columns]
        lines.append(f"| {row.title} | {' | '.join(summary(one) if one else '–' for one in found)} |")
    return "\n".join(lines)


def _head(results: Results) -> str:
    release, *others = (
        results.stack.versions[name] for name in ("sentence-transformers", "transformers", "accelerate")
    )
    if results.stack.forked:
        return f"this fork ({release.partition('+')[0]})"
    return " / ".join([release, *(".".join(version.split(".")[:2]) for version in others)])


def summary(row: Row) -> str:
    """What is wrong in a row, in a few words."""
    states = {name: cell.state for name, cell in row.cells.items() if cell.state != NOT_APPLICABLE}
    if not states:
        return "–"
    if set(states.values()) == {RIGHT}:
        return "✓"
    for state, word in ((CRASHED, "crashes"), (HANGS, "hangs")):
        if set(states.values()) == {state}:
            return f"✗ {word}"
    bad = [name for name, state in states.items() if state != RIGHT and name not in RESUMES.values()]
    places = [place for place, name in RESUMES.items() if states.get(name, RIGHT) != RIGHT]
    if places:
        bad.append("resume" if len(places) == len(RESUMES) else f"resume {', '.join(places)}")
    return f"✗ {', '.join(bad)}"


def update_readme(path: Path = README) -> bool:
    """Put the table of the stored results between the marks; whether anything changed."""
    text = path.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path.name} has no lines `{BEGIN}` and `{END}`: put them where the table belongs")
    table = readme_table([stored(release) for release in COLUMNS])
    made = f"{before}{begin}\n{table}\n{end}{after}"
    path.write_text(made, "utf-8")
    return made != text
