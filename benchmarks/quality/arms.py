"""What is trained: the sizes, the arms, and which of them are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stack = Literal["fork", "release"]

SEEDS = range(8)
WORLD, BATCH, EPOCHS = 2, 16, 3
NAMES, TRAINED, HELD_OUT, CORPUS = 96, 4, 6, 384  # English names; translations of each; names to find one among
LENGTH = 10  # tokens of a name, at most
NEGATIVES = 2  # mined, of each row
ROWS = NAMES * TRAINED
PER_EPOCH = ROWS // (WORLD * BATCH)


@dataclass(frozen=True)
class Arm:
    """One way to train, on one stack."""

    name: str
    label: str
    stack: Stack = "fork"
    sampler: str = "no_duplicates"  # or the name of another of the library's, or "planned"
    dispatched: bool = False
    preempted: bool = False  # in the middle of each epoch
    gathering: bool = False
    negatives: bool = False
    trained: bool = True
    seeds: int = len(SEEDS)  # the first ones


ARMS = (
    Arm("untrained", "the model before training", trained=False),
    Arm("a-release", "epoch 0's order in each epoch (release)", "release", dispatched=True),
    Arm("a-fork", "a new order in each epoch (fork)", dispatched=True),
    Arm("b-release", "preempted in each epoch (release)", "release", preempted=True),
    Arm("b-fork", "preempted in each epoch (fork)", preempted=True),
    Arm("b-whole", "not preempted (fork; seed 0 alone)", seeds=1),
    Arm("c-no_duplicates", "`no_duplicates`, text on both devices", gathering=True),
    Arm("c-planned", "planned across devices", sampler="planned", gathering=True),
    Arm("d-batch_sampler", "`batch_sampler`", sampler="batch_sampler", negatives=True),
    Arm("d-no_duplicates", "`no_duplicates`", negatives=True),
    Arm("d-planned", "planned", sampler="planned", negatives=True),
)

# what is asked: (the one, minus the other)
COMPARISONS = {
    "a: a new order in each epoch, against epoch 0's": ("a-fork", "a-release"),
    "b: resumed by the fork, against the release": ("b-fork", "b-release"),
    "c: planned across devices, against `no_duplicates`": ("c-planned", "c-no_duplicates"),
    "d: planned, against `batch_sampler`": ("d-planned", "d-batch_sampler"),
    "d: planned, against `no_duplicates`": ("d-planned", "d-no_duplicates"),
}
