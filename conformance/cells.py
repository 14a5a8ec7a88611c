"""The matrix as data: the names of its columns, and what a cell and a row hold. Imports nothing of the stack."""

from __future__ import annotations

from dataclasses import dataclass

ORDER, RANKS, COVERAGE, LENGTH, SEEDS, WEIGHTS = "order", "ranks", "rows", "length", "seeds", "weights"
RESUMES = {place: f"resume {place}" for place in ("in epoch 0", "after epoch 0", "in epoch 1")}
PROPERTIES = (ORDER, RANKS, COVERAGE, LENGTH, *RESUMES.values(), SEEDS, WEIGHTS)
MEANINGS = {
    ORDER: "no epoch has the order of an earlier one, nor that of the file",
    RANKS: "at each step all ranks have rows of one plan, and none is on two of them; equal numbers of steps",
    COVERAGE: "all ranks together see each row at most once an epoch, and leave none out but what fills no step",
    LENGTH: "len(dataloader) is the number of steps taken, and of batches in it",
    "resume …": "stopped in the middle of epoch 0, at its end or in epoch 1, a run goes on as if it had not been",
    SEEDS: "data_seed decides the order; each of several datasets has one of its own",
    WEIGHTS: "model and loss have equal parameters on all ranks after each step, and after a resume as if not stopped",
}

RIGHT, WRONG, CRASHED, HANGS, NOT_APPLICABLE = "right", "wrong", "crashed", "hangs", "not applicable"


@dataclass(frozen=True)
class Cell:
    """How a scenario keeps a property: a state, and in one line what is wrong, or why it does not apply."""

    state: str
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """The cells of a scenario, by property, and the seconds that it took."""

    name: str
    title: str
    cells: dict[str, Cell]
    seconds: float = 0.0
