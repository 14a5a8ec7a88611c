"""Name the column of a dataset that cannot become part of a batch.

What a column has to hold depends on the model, so nothing is refused in advance: where collating a column fails, the
error says which column it was, what it holds, and how to leave it out. A column whose name a batch needs for something
else is refused where training on it fails or would be on something else, and named in a warning otherwise.

Cost: none but on failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

_SHOWN = 60  # characters of a value


@contextmanager
def naming_column(column: str, values: Iterable[Any], wanted: str) -> Iterator[None]:
    """
    Within this context, an error of reading a column names it, and a value that is missing, or else the first one.

    Args:
        column (str): The column's name.
        values (iterable): Those that are read. They are looked at after an error, and not before.
        wanted (str): What the column is read as, for the message.

    Raises:
        ValueError: From an error of type or value.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        values = list(values)
        shown = repr(next((value for value in values if value is None), values[0])) if values else "nothing"
        shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
        raise ValueError(
            f"Column {column!r} of the dataset is read as {wanted}, but values such as {shown} cannot be: {error}. "
            f"Convert the column, or leave it out with dataset.remove_columns({column!r})."
        ) from error


def label_tensor(column: str, labels: list[Any]) -> torch.Tensor:
    """
    The labels of a batch.

    Args:
        column (str): The name of the label column.
        labels (list): Its values in the batch, numbers or tensors of one shape.

    Returns:
        torch.Tensor: One label a row.

    Raises:
        ValueError: If the labels do not make a tensor.
    """
    with naming_column(column, labels, "the label"):
        try:
            return torch.stack(labels) if isinstance(labels[0], torch.Tensor) else torch.tensor(labels)
        except RuntimeError as error:  # what torch says of tensors of several shapes, and of None
            raise ValueError(str(error)) from error


def check_names(columns: list[str], taken: dict[str, str | None]) -> None:
    """
    Check that no column is taken for something else because of its name.

    Args:
        columns (list): The names of the columns to train on, labels excepted.
        taken (dict): Names under which a batch carries something else, and what it carries in this batch, if anything.

    Raises:
        ValueError: If a column has such a name, and the batch needs it, or fewer than two columns would be left.
    """
    for name in (name for name in taken if name in columns):
        reason = f"A column of the dataset is called {name!r}, a name under which a batch carries the {name} itself"
        way_out = f"Rename it, e.g. dataset.rename_column({name!r}, 'text')."
        if taken[name] or len(set(columns) - taken.keys()) < 2:
            raise ValueError(f"{reason}, so that it cannot be trained on. {way_out}")
        logger.warning_once(f"{reason}. The column is not trained on. {way_out} Or leave it out.")
