"""The conformance matrix of the installed stack: each cell that the stored results of its fork call right is right.

A cell that the stored results of the release call otherwise is a defect. `python -m conformance` runs the same code.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from conformance.cells import NOT_APPLICABLE, RIGHT, Row
from conformance.matrix import judge
from conformance.results import forked, stored
from conformance.scenarios import BY_NAME
from conformance.stack import installed

RELEASE = installed().release.partition("+")[0]
FORKED, RELEASED = forked(RELEASE), stored(RELEASE)
DEFECTS = {names for names, cell in RELEASED.cells().items() if cell.state not in (RIGHT, NOT_APPLICABLE)}
QUICK = {"single", "ddp", "dispatch"}
LIMIT = 300.0  # seconds for a scenario, where other tests run beside it


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory, model: str) -> Any:
    """The cells of a scenario; its runs are made once."""

    @cache
    def make(scenario: str) -> Row:
        return judge(BY_NAME[scenario], model, tmp_path_factory.mktemp("matrix"), LIMIT)

    return make


def promised() -> list[Any]:
    """Scenario and property of each cell that is right on the fork."""
    return [
        pytest.param(
            *names,
            id=", ".join(names),
            marks=[pytest.mark.defect] * (names in DEFECTS) + [pytest.mark.slow] * (names[0] not in QUICK),
        )
        for names, cell in FORKED.cells().items()
        if cell.state == RIGHT
    ]


@pytest.mark.parametrize(("scenario", "promise"), promised())
def test_the_promise_is_kept(scenario: str, promise: str, judged: Any) -> None:
    """As the stored results of the fork say."""
    cell = judged(scenario).cells[promise]
    if cell.state == NOT_APPLICABLE:
        pytest.skip(cell.detail)
    assert cell.state == RIGHT, cell.detail


@pytest.mark.parametrize("results", [FORKED, RELEASED], ids=["fork", "release"])
def test_the_stored_results_have_every_scenario(results: Any) -> None:
    """One added later has to be measured: `python -m conformance --store`."""
    assert [row.name for row in results.rows] == list(BY_NAME)
    assert all(set(row.cells) == set(BY_NAME[row.name].applicable()) for row in results.rows)
