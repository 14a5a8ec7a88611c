"""The matrix on a terminal: progress while it runs, the table, and a closing line in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from conformance.cells import CRASHED, HANGS, MEANINGS, NOT_APPLICABLE, PROPERTIES, RIGHT, WRONG, Cell, Row
from conformance.matrix import judge
from conformance.results import Results, symbol
from conformance.scenarios import Scenario

_STYLES = {RIGHT: "green", WRONG: "bold red", CRASHED: "red", HANGS: "red", NOT_APPLICABLE: "dim"}


def run(scenarios: Sequence[Scenario], model: str, folder: Path, limit: float, console: Console) -> list[Row]:
    """Judge the scenarios one after the other, and show how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(scenarios))
        for scenario in scenarios:
            progress.update(task, description=f"{scenario.name:17}")
            rows.append(judge(scenario, model, folder / scenario.name, limit))
            progress.advance(task)
            if not console.is_terminal:
                console.print(f"{scenario.name}: {rows[-1].seconds:.1f} s")
    return rows


def show(results: Results, console: Console) -> None:
    """Print the table, what the columns mean, what is wrong, and the closing line."""
    console.print(str(results.stack), highlight=False)
    console.print(_table(results))
    for name, meaning in MEANINGS.items():
        console.print(f"[bold]{name}[/]: {meaning}", highlight=False)
    console.print("✓ right   ✗ wrong   crash, hang: did not run to its end   – does not apply", highlight=False)
    for row in results.rows:
        for detail, names in _details(row).items():
            console.print(f"[bold]{row.name}[/] ({', '.join(names)}): {escape(detail)}", highlight=False)
    console.print(f"\n{closing(results)}", highlight=False, style="bold")


def _table(results: Results) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("scenario", no_wrap=True, vertical="bottom")
    for name in PROPERTIES:
        table.add_column("\n".join(name.split(" ", 2)), justify="center", no_wrap=True)
    table.add_column("s", justify="right")
    for row in results.rows:
        cells = [row.cells.get(name, Cell(NOT_APPLICABLE)) for name in PROPERTIES]
        marks = [f"[{_STYLES[cell.state]}]{symbol(cell)}[/]" for cell in cells]
        table.add_row(row.name, *marks, f"{row.seconds:.0f}")
    return table


def _details(row: Row) -> dict[str, list[str]]:
    """What is wrong, crashes or does not apply in a row, with the properties that it is said of."""
    details: dict[str, list[str]] = {}
    for name, cell in row.cells.items():
        if cell.detail:
            details.setdefault(cell.detail, []).append(name)
    return {detail: names if len(names) < len(row.cells) else ["all"] for detail, names in details.items()}


def closing(results: Results) -> str:
    """How it went, in one line."""
    cells = [cell for cell in results.cells().values() if cell.state != NOT_APPLICABLE]
    broken = [
        row.name for row in results.rows if any(c.state not in (RIGHT, NOT_APPLICABLE) for c in row.cells.values())
    ]
    seconds = f"in {results.seconds:.0f} s"
    if results.status() == 2:
        return f"Nothing could be judged ({seconds}): no scenario ran to its end."
    if not broken:
        return f"All is right {seconds}: batches come in the order promised, whole and resumed, in all scenarios."
    right = sum(cell.state == RIGHT for cell in cells)
    return f"{right} of {len(cells)} promises are kept ({seconds}); not all in {', '.join(broken)}."
