"""An array on disk beside the dataset's cache files: built by one process, mapped by the others.

Guarantee: what is read was written for this key, or it is built anew. The file appears under its name complete, and
one process at a time builds it (a file lock). Where the folder cannot be written, the array is built in memory and
this is logged once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from transformers.utils import logging

logger = logging.get_logger(__name__)

Array = npt.NDArray[Any]


def cached_array(path: Path, shape: tuple[int, ...], build: Callable[[], Array]) -> Array:
    """Map the array from ``path``, building and writing it first if need be.

    Args:
        path: of the ``.npy`` file; its name says what the array is of.
        shape: of the array; a file of another shape is written anew.
        build: computes the array.
    """
    array = _read(path, shape)
    if array is not None:
        return array
    try:
        with FileLock(f"{path}.lock"):
            array = _read(path, shape)
            if array is None:
                array = build()
                write_atomically(path, lambda file: np.save(file, array))
    except OSError as error:
        logger.warning_once(
            f"The values of the dataset are not kept on disk: {path.parent} cannot be written: {error}"
        )
    return build() if array is None else array


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that appears under its name complete or not at all.

    Args:
        path: of the file; a former one is replaced.
        write: writes the content to an open file.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            write(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, shape: tuple[int, ...]) -> Array | None:
    """The array, or None where the file is missing, damaged or of other data."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if isinstance(array, np.ndarray) and array.shape == shape else None
