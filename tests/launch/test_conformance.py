"""The conformance suite around its runs: results to keep, the README's table, the terminal, the command line."""

from __future__ import annotations

import io
import os
import re
import time
from dataclasses import replace
from multiprocessing.util import Finalize
from pathlib import Path

import pytest
from rich.console import Console

from conformance import __main__ as command
from conformance import results
from conformance.cells import (
    COVERAGE,
    CRASHED,
    HANGS,
    LENGTH,
    NOT_APPLICABLE,
    ORDER,
    RANKS,
    RESUMES,
    RIGHT,
    WRONG,
    Cell,
    Row,
)
from conformance.launch import RankFailed, RanksHang, run_ranks
from conformance.matrix import judge
from conformance.results import COLUMNS, Results, markdown, readme_table, stored, summary, update_readme
from conformance.runs import Run
from conformance.scenarios import BY_NAME, SCENARIOS, Scenario
from conformance.stack import Stack
from conformance.terminal import closing, show

STACK = Stack({"sentence-transformers": "9.8.7", "transformers": "6.5.4", "accelerate": "2.1.0"}, "3.14.0", "any", 2)
FORK = replace(STACK, versions={**STACK.versions, "sentence-transformers": "9.8.7+epoch.1"})


def row(name: str, **states: str) -> Row:
    """A row with the cells of the states given, wrong ones with a reason."""
    cells = {key: Cell(state, "" if state == RIGHT else f"{key} is {state}") for key, state in states.items()}
    return Row(name, f"scenario {name}", cells, 1.5)


GOOD = row("good", **{ORDER: RIGHT, RANKS: RIGHT})
BAD = row("bad", **{ORDER: WRONG, RANKS: RIGHT, RESUMES["in epoch 1"]: WRONG})
DOWN = row("down", **{ORDER: CRASHED, LENGTH: CRASHED})
MEASURED = Results(STACK, (GOOD, BAD, DOWN), 12)


def test_results_survive_json() -> None:
    """Every cell, with its details, and the stack."""
    assert Results.from_json(MEASURED.to_json()) == MEASURED


def test_measuring_a_scenario_again_keeps_the_others(tmp_path: Path) -> None:
    """Unless they were measured on another stack; a scenario that there is no more goes."""
    names = ("bad", "good")
    results.store(MEASURED, ("good", "bad", "down"), tmp_path)
    mended = row("bad", order=RIGHT)
    path = results.store(Results(STACK, (mended,), 3), names, tmp_path)
    assert Results.from_json(path.read_text("utf-8")) == replace(MEASURED, rows=(mended, GOOD))
    other = replace(STACK, versions={**STACK.versions, "accelerate": "3.0.0"})
    with pytest.raises(ValueError, match=r"9\.8\.7\.json was measured on .* measure all scenarios anew"):
        results.store(Results(other, (mended,), 3), names, tmp_path)


def test_results_of_another_format_are_refused() -> None:
    """The message says what to do."""
    with pytest.raises(ValueError, match="format 0, not 1: measure them anew"):
        Results.from_json('{"format": 0}')


@pytest.mark.parametrize(("rows", "status"), [((GOOD,), 0), ((GOOD, DOWN), 1), ((BAD,), 1), ((DOWN,), 2), ((), 2)])
def test_exit_status_tells_right_wrong_and_not_run(rows: tuple[Row, ...], status: int) -> None:
    """A crash beside others is wrong; if nothing runs, nothing was found out."""
    assert Results(STACK, rows).status() == status


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({ORDER: RIGHT, RANKS: RIGHT}, "✓"),
        ({ORDER: NOT_APPLICABLE}, "–"),
        ({ORDER: CRASHED, RANKS: CRASHED}, "✗ crashes"),
        ({ORDER: HANGS, RANKS: HANGS}, "✗ hangs"),
        ({ORDER: WRONG, RANKS: RIGHT, RESUMES["in epoch 1"]: WRONG}, "✗ order, resume in epoch 1"),
        ({COVERAGE: WRONG, **dict.fromkeys(RESUMES.values(), WRONG)}, "✗ rows, resume"),
        ({ORDER: RIGHT, RESUMES["after epoch 0"]: CRASHED}, "✗ resume after epoch 0"),
        ({RESUMES["in epoch 0"]: WRONG, RESUMES["in epoch 1"]: WRONG}, "✗ resume in epoch 0, in epoch 1"),
    ],
)
def test_a_row_is_summed_up_in_a_few_words(states: dict[str, str], said: str) -> None:
    """What is wrong, and nothing else."""
    assert summary(row("any", **states)) == said


def test_tables_have_a_cell_for_each_stack_and_property() -> None:
    """A scenario that a stack was not measured in has a dash."""
    table = readme_table([MEASURED, Results(FORK, (GOOD, row("new", order=RIGHT)))])
    assert table.splitlines() == [
        "| | 9.8.7 / 6.5 / 2.1 | this fork (9.8.7) |",
        "|---|:-:|:-:|",
        "| scenario good | ✓ | ✓ |",
        "| scenario new | – | ✓ |",
    ]
    assert markdown(MEASURED).splitlines()[3] == "| scenario bad | ✗ | ✓ | – | – | – | – | ✗ | – | – |"


def test_the_terminal_says_what_is_wrong_and_closes_in_plain_words() -> None:
    """A reason is said once for a scenario."""
    console = Console(width=80, record=True, file=io.StringIO())
    show(MEASURED, console)
    said = console.export_text()
    assert "sentence-transformers 9.8.7, transformers 6.5.4" in said
    assert "bad (order): order is wrong" in said
    assert said.splitlines()[-1] == "3 of 7 promises are kept (in 12 s); not all in bad, down."
    assert closing(Results(STACK, (GOOD,), 3)).startswith("All is right in 3 s")
    assert closing(Results(STACK, (DOWN,), 3)).startswith("Nothing could be judged")


def test_the_readme_has_the_table_of_the_stored_results(tmp_path: Path) -> None:
    """Written again, nothing changes; run `python -m conformance readme` if this fails."""
    text = results.README.read_text("utf-8")
    assert f"{results.BEGIN}\n{readme_table([stored(release) for release in COLUMNS])}\n{results.END}" in text
    readme = tmp_path / "README.md"
    readme.write_text(re.sub(r"\| one process \|.*", "| one process | edited |", text), "utf-8")
    assert update_readme(readme)
    assert readme.read_text("utf-8") == text
    assert not update_readme(readme)


def test_a_readme_without_marks_is_refused(tmp_path: Path) -> None:
    """Instead of a table in the wrong place."""
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n", "utf-8")
    with pytest.raises(ValueError, match=r"README\.md has no lines"):
        update_readme(readme)


def test_stored_results_are_of_the_stack_that_they_are_named_after() -> None:
    """And of the scenarios that there are."""
    for path in results.FOLDER.glob("*.json"):
        kept = stored(path.stem)
        assert kept.stack.release == path.stem
        assert {row.name for row in kept.rows} == set(BY_NAME), path.name


def test_an_unknown_scenario_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and the way out."""
    with pytest.raises(SystemExit, match="2"):
        command.main(["--scenario", "dispach"])
    assert "no scenario is named 'dispach', but 'dispatch' is; see --list" in capsys.readouterr().err


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    """One a line, as --scenario takes it."""
    assert command.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [scenario.name for scenario in SCENARIOS]


def test_what_is_missing_is_named_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and what to install."""
    monkeypatch.setattr(command, "missing", lambda: ["babel"])
    assert command.main([]) == 2
    assert "pip install babel" in capsys.readouterr().err


def sleeping_trainer(run: Run, arguments: dict, dataset: object) -> None:
    """Never ends."""
    time.sleep(600)


def failing_trainer(run: Run, arguments: dict, dataset: object) -> None:
    """Ends in an exception of several lines."""
    raise KeyError("no such thing") from ValueError("first\nsecond")


def test_a_scenario_that_hangs_is_a_result(tmp_path: Path) -> None:
    """Its time is bounded, and every cell says so."""
    judged = judge(Scenario("any", "any", 1, {"trainer": sleeping_trainer}), "", tmp_path, limit=1.0)
    assert {cell.state for cell in judged.cells.values()} == {HANGS}
    assert judged.cells[ORDER].detail == "ranks [0] had not ended after 1 s"


def test_a_scenario_that_crashes_is_a_result(tmp_path: Path) -> None:
    """The reason is the exception that ended the rank, in one line."""
    judged = judge(Scenario("any", "any", 2, {"trainer": failing_trainer}), "", tmp_path)
    assert {(cell.state, cell.detail) for cell in judged.cells.values()} == {(CRASHED, "KeyError: 'no such thing'")}


def test_a_scenario_that_the_stack_cannot_have_does_not_apply(tmp_path: Path) -> None:
    """Nothing runs, and the reason is kept."""
    judged = judge(Scenario("any", "any", needs=lambda: "too old"), "", tmp_path)
    assert set(judged.cells.values()) == {Cell(NOT_APPLICABLE, "too old")}


def fail_in_turn(folder: str) -> None:
    """Rank 1 fails first and takes long to end; rank 0 fails for it, as one whose peer has closed the connection."""
    failed = Path(folder, "failed")
    if os.environ["RANK"] == "1":
        Finalize(None, time.sleep, args=(3,), exitpriority=0)
        failed.touch()
        raise KeyError("the cause")
    while not failed.exists():
        time.sleep(0.01)
    time.sleep(0.5)
    raise ValueError("what follows from it")


def test_ranks_that_fail_name_the_first_error(tmp_path: Path) -> None:
    """A rank that ends earlier, since it has lost another, does not hide what that one raised."""
    with pytest.raises(RankFailed, match=r"(?s)rank 0 ended with status 1, not 0; rank 1 raised:.*the cause"):
        run_ranks(2, fail_in_turn, str(tmp_path))


def test_a_hang_is_told_from_a_failure() -> None:
    """Both end a run; only one of them is out of time."""
    with pytest.raises(RanksHang):
        run_ranks(1, sleeping_trainer, None, None, None, timeout=0.5)
    with pytest.raises(RankFailed, match="KeyError"):
        run_ranks(1, failing_trainer, None, None, None)
