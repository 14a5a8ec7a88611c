"""The scenarios: how a run is launched, read and sampled, and which properties it promises.

Each is one call of ``train()`` on 1 to 3 processes, of 3 epochs over about 100 rows in
batches of 8, unless it says otherwise.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from conformance import runs, trainers
from conformance.cells import LENGTH, PROPERTIES, RANKS, RESUMES, SEEDS, WEIGHTS
from conformance.runs import Run

ROWS, BATCH_SIZE, EPOCHS = 100, 8, 3
ORDERS = tuple(name for name in PROPERTIES if name != WEIGHTS)
"""The properties of the order of rows; that of weights takes longer, and says the same in many scenarios."""


@dataclass(frozen=True)
class Scenario:
    """
    A way to launch a run.

    Args:
        name: What ``--scenario`` takes.
        title: The same in words.
        world_size: The number of processes.
        changes: Fields of the :class:`~conformance.runs.Run`.
        needs: Says why an installed stack cannot have it; an empty string if it can.
        left_out: The number of rows that an epoch may leave out; None for those that fill no step, if
            there are several processes.
        properties: Those that it is judged by.
        resumed_on: The number of processes, and of rows in a batch, with which it goes on; None for the same.
    """

    name: str
    title: str
    world_size: int = 1
    changes: dict[str, Any] = field(default_factory=dict)
    needs: Callable[[], str] = str
    left_out: int | None = None
    properties: tuple[str, ...] = ORDERS
    resumed_on: tuple[int, int] | None = None

    def applicable(self) -> tuple[str, ...]:
        """The properties that say something here: one process has no ranks to agree, one dataset no others."""
        datasets = len(self.changes.get("rows", (ROWS,)))
        left = {RANKS: self.world_size == 1, SEEDS: datasets == 1 and self.properties != (SEEDS,)}
        return tuple(name for name in self.properties if not left.get(name))

    def run(self, folder: str, model: str) -> Run:
        """The run that each process makes."""
        settings = {"rows": (ROWS,), "batch_size": BATCH_SIZE, "epochs": EPOCHS, **self.changes}
        return Run(folder, model, **settings)

    def may_leave_out(self) -> int:
        """The number of rows of an epoch that may stay unseen."""
        if self.left_out is not None:
            return self.left_out
        return self.world_size * BATCH_SIZE - 1 if self.world_size > 1 else 0


def needs_trainer(name: str) -> Callable[[], str]:
    """Some kinds of model are younger than the oldest releases."""
    return lambda: "" if hasattr(runs, f"{name}Trainer") else f"this release has no {name}Trainer"


def needs_planned() -> str:
    """The package of planned batches, which runs on the release as well."""
    return "" if trainers.planned else "sentence_transformers.planned is not installed"


def needs_torchdata() -> str:
    """accelerate takes its stateful loader from there."""
    return "" if importlib.util.find_spec("torchdata") else "torchdata is not installed"


SPLIT, DISPATCH = {"split_batches": True}, {"dispatch_batches": True}
STREAMED = tuple(name for name in ORDERS if name not in (LENGTH, SEEDS))
WORKERS = {"arguments": {"dataloader_num_workers": 2}}
DATASETS = {"rows": (48, 48, 48)}
PLANNED = {"sampler": trainers.planned}
FREQUENT = {"trainer": trainers.frequent_trainer, "rows": (96,)}
SMALL_MEMORY = {
    "trainer": trainers.small_memory_trainer,
    "batch_size": 16,
    "arguments": {"auto_find_batch_size": True},
    "gradients": True,
}

SCENARIOS = (
    Scenario("single", "one process", properties=PROPERTIES),
    Scenario("ddp", "DDP on 2", 2, properties=PROPERTIES),
    Scenario("ddp-3", "DDP on 3", 3),
    Scenario("split", "`split_batches`", 2, {"accelerator": SPLIT}, left_out=BATCH_SIZE - 1, properties=PROPERTIES),
    Scenario(
        "dispatch", "`dispatch_batches`, tensors of one shape", 2, {"accelerator": DISPATCH}, properties=PROPERTIES
    ),
    Scenario("dispatch-3", "… on 3", 3, {"accelerator": DISPATCH}),
    Scenario("dispatch-split", "… with `split_batches`", 2, {"accelerator": {**DISPATCH, **SPLIT}}),
    Scenario("dispatch-workers", "… with workers", 2, {"accelerator": DISPATCH, **WORKERS}),
    Scenario(
        "dispatch-datasets", "… with workers, several datasets", 2, {"accelerator": DISPATCH, **WORKERS, **DATASETS}
    ),
    Scenario(
        "dispatch-texts",
        "… texts of any length",
        2,
        {"accelerator": DISPATCH, "trainer": trainers.as_collated_trainer},
    ),
    Scenario("auto-batch-size", "`auto_find_batch_size`, one process", 1, SMALL_MEMORY),
    Scenario(
        "iterable",
        "`IterableDataset`, one process",
        1,
        {"trainer": trainers.iterable_trainer, "rows": (96,)},
        properties=STREAMED,
    ),
    Scenario(
        "iterable-ddp",
        "… on 2",
        2,
        {"trainer": trainers.iterable_trainer, "rows": (96,)},
        properties=STREAMED,
    ),
    Scenario("stateful", "stateful loader", 2, {"trainer": trainers.stateful_trainer}, needs_torchdata),
    Scenario(
        "stateful-workers",
        "… with workers",
        2,
        {"trainer": trainers.stateful_trainer, "arguments": {"dataloader_num_workers": 1}},
        needs_torchdata,
    ),
    Scenario(
        "cross-encoder",
        "cross-encoder, default flags",
        2,
        {"trainer": trainers.default_cross_encoder_trainer},
        needs_trainer("CrossEncoder"),
    ),
    Scenario(
        "cross-encoder-flag",
        "… `ddp_find_unused_parameters=False`",
        2,
        {"trainer": runs.cross_encoder_trainer},
        needs_trainer("CrossEncoder"),
    ),
    Scenario("sparse", "sparse encoder", 2, {"trainer": runs.sparse_encoder_trainer}, needs_trainer("SparseEncoder")),
    Scenario(
        "multi-vector",
        "multi-vector encoder",
        2,
        {"trainer": runs.multi_vector_encoder_trainer},
        needs_trainer("MultiVectorEncoder"),
    ),
    Scenario("proportional", "several datasets, proportional", 2, {**DATASETS, "multi": "proportional"}),
    Scenario("round-robin", "several datasets, round robin", 2, {**DATASETS, "multi": "round_robin"}),
    Scenario("default", "default sampler, one process", 1, {"sampler": "batch_sampler"}),
    Scenario("default-ddp", "… on 2", 2, {"sampler": "batch_sampler"}),
    Scenario("default-seeds", "… global seeds differ", 2, {"sampler": "batch_sampler", "reseed": True}),
    Scenario("frequent", "`no_duplicates`, each anchor in 4 rows", 2, FREQUENT),
    Scenario("frequent-planned", "planned batches, the same", 2, {**FREQUENT, **PLANNED}, needs_planned, 0),
    Scenario("planned", "planned batches", 2, PLANNED, needs_planned, left_out=0),
    Scenario(
        "planned-dispatch", "… `dispatch_batches`", 2, {**PLANNED, "accelerator": DISPATCH}, needs_planned, left_out=1
    ),
    Scenario(
        "elastic-planned",
        "begun on 2 × 8, resumed on 1 × 16: planned batches",
        2,
        PLANNED,
        needs_planned,
        left_out=0,
        resumed_on=(1, 16),
        properties=tuple(RESUMES.values()),
    ),
    Scenario(
        "elastic-default",
        "… default sampler",
        2,
        {"sampler": "batch_sampler", "rows": (96,)},
        resumed_on=(1, 16),
        properties=tuple(RESUMES.values()),
    ),
    Scenario("data-seed", "`data_seed` with `no_duplicates`, one process", 1, properties=(SEEDS,)),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
