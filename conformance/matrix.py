"""Run scenarios and judge each by its properties.

A scenario takes one uninterrupted run, which every property is judged by, and three short ones that resume it from
the checkpoints it wrote. A run that crashes or hangs is a result, and ends no other scenario.

Cost: about 5 seconds a scenario on two cores; at most ``limit`` seconds, and then it hangs.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from conformance import properties
from conformance.cells import (
    COVERAGE,
    CRASHED,
    HANGS,
    LENGTH,
    NOT_APPLICABLE,
    ORDER,
    PROPERTIES,
    RANKS,
    RESUMES,
    RIGHT,
    SEEDS,
    WEIGHTS,
    WRONG,
    Cell,
    Row,
)
from conformance.launch import RankFailed, RanksHang, run_ranks
from conformance.observe import cuts, observe
from conformance.properties import Ranks, Record
from conformance.runs import Run
from conformance.scenarios import Scenario
from conformance.weights import judge_weights

LIMIT = 120.0
"""Seconds for all runs of one scenario."""


def judge(
    scenario: Scenario, model: str, folder: Path, limit: float = LIMIT, wanted: Collection[str] | None = None
) -> Row:
    """
    Run a scenario and judge it.

    Args:
        scenario: What to run.
        model: The folder of the model to train.
        folder: Where the runs write their checkpoints.
        limit: Seconds for all of its runs.
        wanted: The properties that it is judged by; by default all that apply.
    """
    applicable = [name for name in scenario.applicable() if wanted is None or name in wanted]
    lacking = scenario.needs()
    if lacking:
        return Row(scenario.name, scenario.title, dict.fromkeys(applicable, Cell(NOT_APPLICABLE, lacking)))
    start = time.monotonic()
    trial = _Trial(scenario, model, folder, start + limit)
    cells = trial.seeds() if scenario.properties == (SEEDS,) else trial.cells(applicable)
    return Row(scenario.name, scenario.title, {name: cells[name] for name in applicable}, time.monotonic() - start)


class _Trial:
    """The runs of one scenario, all of which have ended at ``deadline``."""

    def __init__(self, scenario: Scenario, model: str, folder: Path, deadline: float) -> None:
        self.scenario, self.model, self.folder, self.deadline = scenario, model, folder, deadline

    def cells(self, wanted: Collection[str]) -> dict[str, Cell]:
        """Judge the uninterrupted run, and those that resume it where that is wanted."""
        scenario = self.scenario
        if list(wanted) == [WEIGHTS]:
            return {WEIGHTS: self._weights()}
        run = scenario.run(str(self.folder / "whole"), self.model)
        try:
            whole: Ranks = self._observe(scenario.world_size, run, True)
        except RankFailed as error:
            return dict.fromkeys(PROPERTIES, _failed(error))
        judged = {
            ORDER: properties.new_order(whole),
            RANKS: properties.ranks_agree(whole),
            COVERAGE: properties.coverage(whole, sum(run.rows), scenario.may_leave_out()),
            LENGTH: properties.length(whole),
            SEEDS: properties.own_orders(whole, run.rows),
        }
        resumes = {place: name for place, name in RESUMES.items() if name in wanted}
        cells = {**{name: _cell(wrong) for name, wrong in judged.items()}, **self._resumes(run, whole, resumes)}
        return {**cells, WEIGHTS: self._weights()} if WEIGHTS in wanted else cells

    def _resumes(self, run: Run, whole: Ranks, wanted: dict[str, str]) -> dict[str, Cell]:
        if any(len(record.starts) < 2 for record in whole):
            return dict.fromkeys(wanted.values(), Cell(WRONG, "only one epoch began"))
        order = properties.new_order(whole)
        cells = {}
        for place, cut in cuts(whole[0]).items():
            if place not in wanted:
                continue
            cell = _attempt(lambda place=place, cut=cut: self._resumed(run, whole, place, cut))  # type: ignore[misc]
            if cell.state == RIGHT and order and place == "in epoch 1":
                cell = Cell(WRONG, f"goes on, but {order}")
            cells[RESUMES[place]] = cell
        return cells

    def _resumed(self, run: Run, whole: Ranks, place: str, cut: int) -> str:
        world_size, batch_size = self.scenario.resumed_on or (self.scenario.world_size, run.batch_size)
        checkpoint = str(Path(run.folder) / f"checkpoint-{cut}")
        changed = replace(run, folder=str(self.folder / place), resume=checkpoint, batch_size=batch_size)
        return properties.resumed(whole, cut, self._observe(world_size, changed))

    def _weights(self) -> Cell:
        left = max(self.deadline - time.monotonic(), 0.0)
        return judge_weights(self.scenario, "plain", self.model, self.folder / "weights", limit=left)

    def seeds(self) -> dict[str, Cell]:
        """Judge three runs by their orders alone."""
        return {SEEDS: _attempt(self._data_seed)}

    def _data_seed(self) -> str:
        run = replace(self.scenario.run(str(self.folder), self.model), epochs=1)
        settings = [{"seed": seed, "data_seed": data_seed} for seed, data_seed in ((1, 5), (2, 5), (1, 6))]
        one, same, other = (self._observe(1, replace(run, arguments=arguments)) for arguments in settings)
        return properties.follows_data_seed([one, same], other)

    def _observe(self, world_size: int, run: Run, whole: bool = False) -> Ranks:
        left = max(self.deadline - time.monotonic(), 0.0)
        records: Ranks = run_ranks(world_size, _observe_quietly, run, whole, timeout=left)
        return records


def _observe_quietly(run: Run, whole: bool) -> Record:
    """Called in each rank, whose output would run through the table."""
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"output-{os.environ.get('RANK', 0)}.txt").open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    return observe(run, whole)


def _attempt(check: Callable[[], str]) -> Cell:
    try:
        return _cell(check())
    except RankFailed as error:
        return _failed(error)


def _cell(wrong: str) -> Cell:
    return Cell(WRONG, wrong) if wrong else Cell(RIGHT)


def _failed(error: RankFailed) -> Cell:
    """Why a rank ended, in one line: the exception that ended its traceback."""
    lines = str(error).rstrip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    said = [line for line in lines[frames[-1] :] if not line.startswith(" ")] if frames else lines
    return Cell(HANGS if isinstance(error, RanksHang) else CRASHED, textwrap.shorten(said[0], 160, placeholder=" …"))
