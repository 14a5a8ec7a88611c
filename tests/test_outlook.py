"""What `make outlook` says of given outcomes."""

from __future__ import annotations

from outlook import Outcome, outcomes, pins, verdict

PINNED = {"sentence-transformers": "6.2.0", "transformers": "5.23.0", "accelerate": "1.15.0"}
NEWEST = {**PINNED, "accelerate": "1.16.0"}
REPORT = """<testsuites><testsuite>
<testcase name="test_every_epoch_is_a_new_epoch[new epoch ddp]"/>
<testcase name="test_resumed_run[resume ddp]"><failure message="AssertionError: assert 1 == 2"/></testcase>
<testcase name="test_resumed_run[resume split]"><failure message="launch.RankFailed: rank 1&#10;more"/></testcase>
<testcase name="test_resumed_run[resume single]"><error message="failed on setup"/></testcase>
<testcase name="test_data_seed[data_seed]"><skipped message="no"/></testcase>
<testcase name="test_no_row_is_seen_twice_in_an_epoch[ddp]"/>
</testsuite></testsuites>"""


def test_a_crash_is_no_failed_assertion() -> None:
    """Right, wrong and crashed scenarios are told apart, skipped ones left out."""
    assert outcomes(REPORT) == [
        Outcome("new epoch ddp", True),
        Outcome("resume ddp", False),
        Outcome("resume split", False, "launch.RankFailed: rank 1"),
        Outcome("resume single", False, "failed on setup"),
        Outcome("each row once, ddp", True),
    ]


def test_the_pin_is_kept_while_a_scenario_is_wrong() -> None:
    """Each defect is said to be fixed in the new releases, or needed."""
    found = [Outcome("resume ddp", True), Outcome("data_seed", False), Outcome("new epoch ddp", False)]
    said, status = verdict(found, {"resume ddp", "data_seed"}, NEWEST, PINNED)
    assert status == 0
    assert [line.split(None, 1)[0] for line in said.splitlines()[1:-1]] == ["data_seed", "new", "resume"]
    assert "fixed upstream in accelerate 1.16.0" in said and "broken anew in accelerate 1.16.0" in said
    assert said.splitlines()[-1] == "Keep the pin: 2 of 3 scenarios are wrong as published."


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
    assert {"torch", "pytest", "transformers", "accelerate"} <= set(pins())
