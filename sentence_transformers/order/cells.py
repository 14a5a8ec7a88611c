"""An epoch's batches as arrays, and as the cells of a picture. Pure functions.

Guarantee: nothing is drawn at random. An order map's cell shows the row in its middle; in value cells and bins each
row is counted, once.

Cost: linear in rows; 8 bytes a row of each epoch are held, and 4 for its place.
"""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


class Order:
    """
    The batches of an epoch, held as arrays.

    Args:
        batches: The rows of each step's batch, in order.

    Raises:
        ValueError: If there is no row, or a row is no whole number from 0 on.
    """

    def __init__(self, batches: Iterable[Sequence[int]]) -> None:
        parts = [_row_numbers(batch) for batch in batches]
        self.rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        self.sizes = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        if not len(self.rows) or self.rows.min() < 0:
            raise ValueError(
                f"An order of {len(parts)} batches and {len(self.rows)} rows cannot be drawn: pass an epoch's "
                "batches, lists of row numbers from 0 on."
            )

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self.sizes)

    @property
    def starts(self) -> Ints:
        """Place of each batch's first row."""
        return np.cumsum(self.sizes) - self.sizes

    def places(self, rows: int) -> Floats:
        """Of each row, its place between 0 and 1; NaN for a row that is not in the epoch; shape (rows,)."""
        place = np.full(rows, np.nan, dtype=np.float32)
        place[self.rows] = np.linspace(0, 1, len(self.rows), dtype=np.float32)
        return place


def _row_numbers(batch: Sequence[int]) -> Ints:
    try:
        rows = np.asarray(batch)
    except ValueError:  # lists of several lengths
        rows = np.empty(0, dtype=object)
    if rows.ndim == 1 and (np.issubdtype(rows.dtype, np.integer) or not len(batch)):
        return rows.astype(np.int64)
    raise ValueError(f"{reprlib.repr(batch)} is no batch: pass an epoch's batches, lists of row numbers from 0 on.")


def order_cells(order: Order, place: Floats, most_steps: int, most_places: int) -> Floats:
    """The place of the row in the middle of each cell, shape (places in a batch, steps); NaN where there is none.

    Args:
        order: The epoch.
        place: Of each row; shape (rows,).
        most_steps: Columns of cells at the most.
        most_places: Rows of cells at the most.
    """
    width, height = min(order.steps, most_steps), min(int(order.sizes.max()), most_places)
    steps = ((np.arange(width) + 0.5) * order.steps / width).astype(np.int64)
    slots = ((np.arange(height) + 0.5) * int(order.sizes.max()) / height).astype(np.int64)
    at = order.starts[steps] + slots[:, None]
    there = slots[:, None] < order.sizes[steps]
    return np.where(there, place[order.rows[np.where(there, at, 0)]], np.nan)


def bin_counts(x: Floats, y: Floats, lengths: Sequence[int], bins: int) -> Ints:
    """Points in each of ``bins`` × ``bins`` squares of the area ``lengths``, shape (y, x)."""
    at = [np.minimum((values * bins / length).astype(np.int64), bins - 1) for values, length in zip((x, y), lengths)]
    return np.bincount(at[1] * bins + at[0], minlength=bins * bins).reshape(bins, bins)


def value_codes(values: Any, column: str = "value") -> tuple[Ints, list[Any]]:
    """A number for each row's value, -1 for none, and the values by number.

    Raises:
        ValueError: If the values are of a kind that cannot be compared.
    """
    import pyarrow as pa

    try:
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(list(values))
        chunked = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
        encoded = chunked.dictionary_encode().unify_dictionaries()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as cause:
        raise ValueError(f"The values of {column!r} cannot be told apart: {cause}. Choose another column.") from cause
    codes = [np.asarray(chunk.indices.fill_null(-1)) for chunk in encoded.chunks]
    names = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    return np.concatenate([*codes, np.empty(0, dtype=np.int32)]).astype(np.int32), names


def value_cells(order: Order, codes: Ints, frequent: Ints, most_spans: int) -> Ints:
    """Rows of each of the frequent values in each span of steps, shape (values, spans).

    Args:
        order: The epoch.
        codes: Of each row, the number of its value; -1 for none.
        frequent: The numbers of the values to count.
        most_spans: Spans at the most.
    """
    width = min(order.steps, most_spans)
    line_of = np.full(int(codes.max(initial=0)) + 2, -1, dtype=np.int64)
    line_of[frequent] = np.arange(len(frequent))
    lines = line_of[codes[order.rows]]  # a code of -1 takes the last entry, which is no line
    spans = np.repeat(np.arange(order.steps) * width // order.steps, order.sizes)
    held = lines >= 0
    flat = np.bincount(lines[held] * width + spans[held], minlength=len(frequent) * width)
    return flat.reshape(len(frequent), width)


def short_names(texts: Sequence[str], most: int) -> list[str]:
    """
    Each text on one line of at most ``most`` characters, and no two alike.

    Texts that begin alike are shown from a few characters before the place at which they part.

    Args:
        texts: What to shorten.
        most: Characters of a name, 4 or more.
    """
    lines = [" ".join(text.split()) for text in texts]
    names = _parted(lines, list(range(len(lines))), 0, most)
    seen: defaultdict[str, int] = defaultdict(int)
    for at, name in sorted(names.items()):
        seen[name] += 1
        if seen[name] > 1:  # they part at several places, or in spaces alone
            number = f"… #{seen[name]}"
            names[at] = name[: most - len(number)] + number
    return [names[at] for at in range(len(lines))]


def _parted(lines: list[str], members: list[int], start: int, most: int) -> dict[int, str]:
    """The names of those lines, begun at ``start``; where some are alike, these are begun where they part."""
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for member in members:
        alike[_cut(lines[member], start, most)].append(member)
    names: dict[int, str] = {}
    for name, same in alike.items():
        texts = [lines[member] for member in same]
        further = min(_alike(min(texts), max(texts)) - most // 2, max(map(len, texts)) - most)
        if len(set(texts)) > 1 and further > start:
            names |= _parted(lines, same, further, most)
        else:
            names |= dict.fromkeys(same, name)
    return names


def _alike(one: str, other: str) -> int:
    """Characters of their common beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _cut(line: str, start: int, most: int) -> str:
    begun = f"…{line[start + 1 :]}" if start else line
    return begun if len(begun) <= most else f"{begun[: most - 1]}…"
