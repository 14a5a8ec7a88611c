"""Which parameters of a test `make test` runs, so that it ends within minutes; `make test-all` runs every one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def few_of(names: Iterable[Any], few: Collection[Any], defects: Collection[Any] = ()) -> list[Any]:
    """Parameters with the marks of a defect where they have them; those that are not among the few are wide."""
    return [
        pytest.param(
            name,
            id=str(name),
            marks=[*[pytest.mark.defect] * (name in defects), *[pytest.mark.wide] * (name not in few)],
        )
        for name in names
    ]
