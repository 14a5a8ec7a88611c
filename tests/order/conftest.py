"""What the tests of an order share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from order_runs import LAUNCHES, Outcome, attempt, run_of

from conformance.launch import run_ranks
from conformance.runs import Run, continued


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Callable[[str], list[int]]:
    """The fingerprints of a whole run, which all of its processes log; made once for each launch mode."""

    @cache
    def make(launch: str) -> list[int]:
        world_size, changes = LAUNCHES[launch]
        outcomes: list[Outcome] = run_ranks(
            world_size, attempt, run_of(tmp_path_factory.mktemp("whole"), model, **changes)
        )
        assert all(outcome.quiet for outcome in outcomes), outcomes
        (logged,) = {tuple(outcome.fingerprints) for outcome in outcomes}
        return list(logged)

    return make


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory, model: str) -> Callable[[str], Run]:
    """The run that goes on from one stopped in the middle of epoch 1; made once for each launch mode."""

    @cache
    def make(launch: str) -> Run:
        world_size, changes = LAUNCHES[launch]
        steps = 3 if launch == "accumulation" else 8
        run = replace(run_of(tmp_path_factory.mktemp("stopped"), model, stop_after=steps), **changes)
        outcomes: list[Outcome] = run_ranks(world_size, attempt, run)
        assert all(outcome.quiet for outcome in outcomes), outcomes
        return continued(run)

    return make
