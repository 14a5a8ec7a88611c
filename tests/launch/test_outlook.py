"""What `make outlook` says of given outcomes."""

from __future__ import annotations

from conformance.cells import CRASHED, NOT_APPLICABLE, RIGHT, WRONG, Cell, Row
from conformance.outlook import TOOLS, Outcome, outcomes, pins, verdict
from conformance.results import Results
from conformance.stack import Stack

PINNED = {"sentence-transformers": "6.2.0", "transformers": "5.23.0", "accelerate": "1.15.0"}
NEWEST = {**PINNED, "accelerate": "1.16.0"}


def test_a_crash_is_no_broken_promise_unless_it_is_a_known_one() -> None:
    """Right, wrong and crashed cells are told apart; what does not apply, or is wrong on the fork, is left out."""
    cells = {
        "order": Cell(RIGHT),
        "resume in epoch 0": Cell(WRONG, "steps differ"),
        "resume in epoch 1": Cell(CRASHED, "TypeError"),
        "rows": Cell(CRASHED, "TypeError"),
        "length": Cell(WRONG, "not promised"),
        "seeds": Cell(NOT_APPLICABLE),
    }
    promised = {f"ddp, {name}" for name in cells if name != "length"}
    found = Results(Stack(), (Row("ddp", "", cells),))
    assert outcomes(found, promised, known={"ddp, rows"}) == [
        Outcome("ddp, order", True),
        Outcome("ddp, resume in epoch 0", False),
        Outcome("ddp, resume in epoch 1", False, "TypeError"),
        Outcome("ddp, rows", False),
    ]


def test_the_pin_is_kept_while_a_scenario_is_wrong() -> None:
    """Each defect is said to be fixed in the new releases, or needed."""
    found = [Outcome("resume ddp", True), Outcome("data_seed", False), Outcome("new epoch ddp", False)]
    said, status = verdict(found, {"resume ddp", "data_seed"}, NEWEST, PINNED)
    assert status == 0
    assert [line.split(None, 1)[0] for line in said.splitlines()[1:-1]] == ["data_seed", "new", "resume"]
    assert "fixed upstream in accelerate 1.16.0" in said and "broken anew in accelerate 1.16.0" in said
    assert said.splitlines()[-1] == "Keep the pin: 2 of 3 promises are not kept as published."


def test_the_pin_is_dropped_when_all_is_right() -> None:
    """The last line says how."""
    said, status = verdict([Outcome("resume ddp", True)], {"resume ddp"}, NEWEST, PINNED)
    assert status == 1
    assert said.splitlines()[-1].startswith("Drop the pin") and "accelerate==1.16.0" in said.splitlines()[-1]


def test_what_could_not_be_found_out_is_no_reason_to_drop_the_pin() -> None:
    """A crash, a known defect that was not looked at, nothing at all."""
    for found in ([Outcome("resume ddp", False, "crash")], [Outcome("new epoch ddp", True)], []):
        said, status = verdict(found, {"resume ddp"}, NEWEST, PINNED)
        assert status == 2
        assert said.splitlines()[-1].startswith("Keep the pin for now")


def test_pins_are_those_that_setup_installs() -> None:
    """Of the fork's base and of the tools."""
    assert pins()["sentence-transformers"] == "6.2.0"
    assert {*TOOLS, "transformers", "accelerate"} <= set(pins())
