"""The no-harm table as data: a case is a function that runs a trainer in a way that people do."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.harm.bench import Bench

MODULES = ("samplers", "loaders", "loops", "callbacks", "data", "settings", "kept")
"""Of this package, in which cases are written."""


@dataclass(frozen=True)
class Case:
    """
    A way in which people run the trainer.

    Args:
        name: Of its function.
        function: What runs, in each process.
        worlds: The numbers of processes with which it runs.
        needs: A package without which the case cannot run.
    """

    name: str
    function: Callable[[Bench], None]
    worlds: tuple[int, ...]
    needs: str = ""

    @property
    def missing(self) -> bool:
        """Whether the package that it needs is not there."""
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None


CASES: dict[str, Case] = {}


def case(*worlds: int, needs: str = "") -> Any:
    """Put a function into the table; it runs on one process unless ``worlds`` says otherwise."""

    def enter(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
        name = function.__name__
        if name in CASES:
            raise ValueError(f"two cases are named {name}: rename one")
        CASES[name] = Case(name, function, worlds or (1,), needs)
        return function

    return enter


def load() -> dict[str, Case]:
    """All cases."""
    for module in MODULES:
        importlib.import_module(f"tests.harm.{module}")
    return CASES
