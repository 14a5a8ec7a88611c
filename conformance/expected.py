"""What is expected of a release and of its fork, cell by cell, as ``conformance/expected`` has it written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conformance.cells import CRASHED, HANGS, NOT_APPLICABLE, PROPERTIES, RIGHT, WRONG

FOLDER = Path(__file__).parent / "expected"
STATES = {"+": RIGHT, "-": WRONG, "c": CRASHED, "h": HANGS, ".": NOT_APPLICABLE}
COLUMNS = (20, *(8,) * len(PROPERTIES))
"""The widths of a row: the scenario, and a cell for each property."""


@dataclass(frozen=True)
class Expected:
    """The states of a cell on the fork and on the release."""

    fork: str
    release: str

    @property
    def promised(self) -> bool:
        """Whether the fork has it right."""
        return self.fork == RIGHT

    @property
    def defect(self) -> bool:
        """Whether the fork has it right and the release has not."""
        return self.promised and self.release not in (RIGHT, NOT_APPLICABLE)


def expected(release: str) -> dict[tuple[str, str], Expected]:
    """
    The cells of a release, by scenario and property.

    Raises:
        FileNotFoundError: If nothing is written of that release.
        ValueError: If a line cannot be read.
    """
    _, *lines = (line for line in (FOLDER / f"{release}.txt").read_text("utf-8").splitlines() if line[:1] != "#")
    return {cell: state for line in lines for cell, state in _cells(line).items()}


def _cells(line: str) -> dict[tuple[str, str], Expected]:
    scenario, starts = line[: COLUMNS[0]].strip(), range(COLUMNS[0], sum(COLUMNS), COLUMNS[1])
    found = {}
    for name, start in zip(PROPERTIES, starts):
        cell = line[start : start + COLUMNS[1]].split()
        if not cell:
            continue
        if len(cell) != 2 or not set(cell) <= set(STATES):
            raise ValueError(
                f"{scenario}, {name}: {' '.join(cell)!r} are no two of {' '.join(STATES)}: write one for each, "
                "fork and release, below the name of the property"
            )
        found[scenario, name] = Expected(*(STATES[symbol] for symbol in cell))
    return found
