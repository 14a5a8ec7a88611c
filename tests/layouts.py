"""The layouts of one global batch of 16 rows: the processes, their batches, and how many of these are accumulated."""

from __future__ import annotations

from typing import Any

from conformance.runs import Run

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "2 × 8": (2, {"batch_size": 8}),
    "1 × 16": (1, {"batch_size": 16}),
    "1 × 8, twice": (1, {"batch_size": 8, "arguments": {"gradient_accumulation_steps": 2}}),
    "1 × 4, four times": (1, {"batch_size": 4, "arguments": {"gradient_accumulation_steps": 4}}),
}


def laid_out(layout: str, run: Run) -> tuple[int, dict[str, Any]]:
    """The processes of a layout, and what it changes of a run, with the run's own arguments."""
    world_size, changes = LAYOUTS[layout]
    return world_size, {**changes, "arguments": {**run.arguments, **changes.get("arguments", {})}}
