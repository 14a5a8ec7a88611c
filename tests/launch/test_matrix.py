"""The conformance matrix of the installed stack: each cell that is promised of the fork is right.

What is promised is written in ``conformance/expected``. Where the release has the cell wrong, the test is one of a
defect. ``python -m conformance`` runs the same code.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from conformance.cells import HANGS, NOT_APPLICABLE, RIGHT, Row
from conformance.expected import Expected, expected
from conformance.matrix import judge
from conformance.scenarios import BY_NAME
from conformance.stack import installed

EXPECTED = expected(installed().release.partition("+")[0])
FEW = ("ddp", "cross-encoder")
"""The scenarios of `make test`; `make test-all` has every one, and tests/fixes the others' promises one by one."""
LIMIT, PATIENCE = 300.0, 20.0
"""Seconds for a scenario, where other tests run beside it; and for one that is expected to hang."""


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory, model: str, pytestconfig: pytest.Config) -> Any:
    """The cells of a scenario; its runs are made once, on the release those that its defects need."""
    pristine = pytestconfig.getoption("pristine")

    @cache
    def make(scenario: str) -> Row:
        cells = {promise: cell for (name, promise), cell in EXPECTED.items() if name == scenario}
        hangs = pristine and HANGS in {cell.release for cell in cells.values()}
        wanted = [promise for promise, cell in cells.items() if cell.promised and (cell.defect or not pristine)]
        folder = tmp_path_factory.mktemp("matrix")
        return judge(BY_NAME[scenario], model, folder, PATIENCE if hangs else LIMIT, wanted)

    return make


def promised() -> list[Any]:
    """Scenario and property of each cell that is right on the fork; those of a scenario run in one process."""
    return [
        pytest.param(
            *names,
            id=", ".join(names),
            marks=[
                pytest.mark.xdist_group(names[0]),
                *([pytest.mark.defect] * cell.defect),
                *([pytest.mark.wide] * (names[0] not in FEW)),
            ],
        )
        for names, cell in EXPECTED.items()
        if cell.promised
    ]


@pytest.mark.parametrize(("scenario", "promise"), promised())
def test_the_promise_is_kept(scenario: str, promise: str, judged: Any) -> None:
    """As it is written."""
    cell = judged(scenario).cells[promise]
    if cell.state == NOT_APPLICABLE:
        pytest.skip(cell.detail)
    assert cell.state == RIGHT, cell.detail


def test_something_is_written_of_every_scenario_and_property() -> None:
    """One added later is to be written down in ``conformance/expected``."""
    assert set(EXPECTED) == {(name, promise) for name, one in BY_NAME.items() for promise in one.applicable()}
    assert all(isinstance(cell, Expected) for cell in EXPECTED.values())
