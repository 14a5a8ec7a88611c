"""64-bit hashes of a dataset's values: two values are equal if their texts are, as for upstream's ``no_duplicates``.

Guarantee: equal values have equal hashes; among d distinct values, two share one with a probability of about
d² / 2⁶⁵ (d = 3,000,000: 2.4e-7). Such a collision keeps two rows apart that need not be; it never lets a duplicate
through. Values are read as they are stored, whatever a transform or a format makes of them, so that they are the same
in every process and after a resume. Only columns that a transform makes are read through it, once, with a warning.

Cost: linear in the text; read in batches of ``READ_ROWS``; 8 bytes a row and column.

Known bias: pictures and sounds are compared by their encoded bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset
from datasets.utils import tqdm
from transformers.utils import logging
from xxhash import xxh3_128_hexdigest, xxh64_intdigest

from sentence_transformers.planned.cache import cached_array

logger = logging.get_logger(__name__)

Hashes = npt.NDArray[np.uint64]

READ_ROWS = 10_000
_VERSION = 2
_PLAIN = (str, int, float, bool, bytes, type(None), np.integer, np.floating, np.bool_)
_PLACEHOLDERS = tuple(np.uint64(xxh64_intdigest(text)) for text in (b"", b"None"))


def columns_of(dataset: Any, excluded: Collection[str] = ()) -> list[str]:
    """Names of the columns that a row of the dataset has, but the excluded ones.

    Raises:
        ValueError: If the dataset has no rows, or rows cannot be read by their numbers.
    """
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise ValueError(
            f"Planned batches need random access to the rows, got {type(dataset).__name__}; load the data as a "
            "datasets.Dataset (streaming=False), or use another batch sampler."
        )
    if not len(dataset):
        raise ValueError("The dataset has no rows to plan; pass a dataset with at least one row.")
    row = dataset[0]
    if not isinstance(row, dict):
        raise ValueError(
            f"Planned batches need rows that are dictionaries of columns, got a {type(row).__name__}; load the data "
            "as a datasets.Dataset, or use another batch sampler."
        )
    return [name for name in row if name not in excluded]


def hash_values(dataset: Any, columns: Sequence[str], cache: bool = True) -> Hashes:
    """Hashes of the values of some columns, of shape (rows, columns).

    Args:
        dataset: a ``datasets.Dataset``, or anything that returns a dictionary for a row's number.
        columns: names of columns.
        cache: keep the hashes beside the dataset's cache files, if it has any and no transform, and map them there.

    Raises:
        ValueError: If a value can neither be compared nor pickled.
    """
    if not isinstance(dataset, Dataset):
        return _collect(len(dataset), columns, _made(dataset, columns))
    stored = [name for name in columns if name in dataset.column_names]
    if len(stored) < len(columns):
        made = [name for name in columns if name not in stored]
        logger.warning_once(
            f"The columns {made} are made by a transform, which is called once on each row to compare their values. "
            "If it draws at random, batches may hold duplicates, and processes disagree; store the columns with "
            "Dataset.map."
        )
        hashes = _collect(len(dataset), made, _made(dataset, made))
        parts = {name: hashes[:, [index]] for index, name in enumerate(made)}
        parts.update({name: hash_values(dataset, [name], cache) for name in stored})
        return np.concatenate([parts[name] for name in columns], axis=1)

    def build() -> Hashes:
        return _collect(len(dataset), columns, _stored(dataset, columns))

    path = _cache_path(dataset, columns) if cache else None
    return build() if path is None else cached_array(path, (len(dataset), len(columns)), build)


def placeholders_apart(hashes: Hashes, columns: slice) -> Hashes:
    """The hashes, with a number of its own for each ``""`` and None in ``columns``, so that they equal nothing."""
    found = np.isin(hashes[:, columns], _PLACEHOLDERS)
    if not found.any():
        return hashes
    hashes = hashes.copy()
    hashes[:, columns][found] = np.arange(np.count_nonzero(found), dtype=np.uint64)
    return hashes


def _cache_path(dataset: Dataset, columns: Sequence[str]) -> Path | None:
    """Of the file for these columns; None for data in memory and under a transform, which has no lasting name."""
    if dataset.format["type"] == "custom" or not dataset.cache_files:
        return None
    files = [Path(file["filename"]).absolute() for file in dataset.cache_files]
    # Files may be written anew under the same fingerprint.
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    claim = repr((_VERSION, dataset._fingerprint, list(columns), len(dataset), state))
    return files[0].parent / f"value-hashes-{xxh3_128_hexdigest(claim.encode())}.npy"


def _collect(rows: int, columns: Sequence[str], batches: Iterator[list[Hashes]]) -> Hashes:
    """Batches of one vector a column, as one array, with a progress bar."""
    hashes = np.empty((rows, len(columns)), dtype=np.uint64)
    low = 0
    with tqdm(total=rows, unit=" rows", desc="Hashing values for planned batches", delay=2) as bar:
        for batch in batches:
            size = len(batch[0]) if batch else 0
            for column, part in enumerate(batch):
                hashes[low : low + size, column] = part
            low += size
            bar.update(size)
    return hashes


def _stored(dataset: Dataset, columns: Sequence[str]) -> Iterator[list[Hashes]]:
    if columns:
        for table in dataset.with_format("arrow", columns=list(columns)).iter(batch_size=READ_ROWS):
            yield [_hash_arrow(table.column(name), name) for name in columns]


def _hash_arrow(column: pa.ChunkedArray, name: str) -> Hashes:
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if is_text and not column.null_count:
        encoded = column.cast(pa.large_binary()).to_pylist()
        return np.fromiter(map(xxh64_intdigest, encoded), dtype=np.uint64, count=len(encoded))
    return _hash_python(column.to_pylist(), name)


def _made(dataset: Any, columns: Sequence[str]) -> Iterator[list[Hashes]]:
    for low in range(0, len(dataset), READ_ROWS):
        rows = [dataset[index] for index in range(low, min(low + READ_ROWS, len(dataset)))]
        for index, row in enumerate(rows, low):
            if missing := [name for name in columns if name not in row]:
                raise ValueError(
                    f"Row {index} has no columns {missing}, which row 0 has; let the dataset's transform return the "
                    "same columns for every row."
                )
        yield [_hash_python([row[name] for row in rows], name) for name in columns]


def _hash_python(values: list[Any], name: str) -> Hashes:
    hashes = np.empty(len(values), dtype=np.uint64)
    for index, value in enumerate(values):
        try:
            hashes[index] = xxh64_intdigest(_text(value).encode("utf-8", "surrogatepass"))
        except (pickle.PicklingError, AttributeError, TypeError) as cause:
            raise ValueError(
                f"Column {name!r} holds a {type(value).__name__} that can neither be compared nor pickled, so "
                "duplicates of it cannot be told; convert the column (Dataset.map), or leave it out of the dataset."
            ) from cause
    return hashes


def _text(value: Any) -> str:
    """What tells a value from others; 1 and "1" are equal, as for upstream."""
    if isinstance(value, _PLAIN):
        return str(value)
    if isinstance(value, dict):
        if value.keys() == {"bytes", "path"}:  # a picture or sound
            return _encoded(value["bytes"], value["path"])
        return "{" + ", ".join(f"{key!r}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return str(value) if all(isinstance(item, _PLAIN) for item in value) else str([_text(item) for item in value])
    return str(pickle.dumps(value))


def _encoded(content: bytes | None, path: str | None) -> str:
    if content is None and path is not None and Path(path).is_file():
        content = Path(path).read_bytes()
    return f"media {path}" if content is None else f"media {content!r}"


def shown_value(dataset: Any, columns: Sequence[str], rows: Sequence[int], length: int = 60) -> str:
    """A value that two rows share, in words.

    Args:
        dataset: as for ``hash_values``.
        columns: those that count.
        rows: two rows that share a value.
        length: characters that are shown at most.
    """
    plain = dataset.with_format(None) if isinstance(dataset, Dataset) else dataset
    row, other = ({_text(value): value for name, value in plain[int(n)].items() if name in columns} for n in rows[:2])
    shown = " or ".join(repr(value) for text, value in row.items() if text in other) or "one that a transform made"
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
