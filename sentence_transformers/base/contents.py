"""A digest of a dataset's contents: which values are in which row.

Guarantee: two datasets that are stored alike have the same digest exactly if they have the same columns, in the same
order, and the same values in the same rows (but for a chance of 1 in 2¹²⁸). A row that was changed, left out, added,
or has changed places with another is seen, wherever it is; so is a field that was renamed. Chunks, files or memory,
cache folders, the fingerprint of ``datasets``, ``string`` or ``large_string`` do not count.

Known bias: of more than ``GATHERED`` rows that an indices mapping orders (``shuffle``, ``filter``, ``select``), what
is digested are the stored rows and the mapping, since gathering each row costs a thousand times as much. Such a
dataset and its ``flatten_indices()`` are then told apart, though their rows are the same. The same script makes the
same.

What is digested: the stored values; of a file (an image, a recording), its bytes and its name, not the folder that it
lies in, which may be another on each machine and in each job. A transform (``with_transform``), a format, and what a
column of paths points to are not looked at. Rows of an ``IterableDataset`` cannot be digested without reading
the stream to its end.

Cost: each stored byte is read once, at the speed of memory: about 0.04 s for a million rows of three short texts.
What is not in memory has to be read from disk; a progress bar appears after two seconds. Held in memory are at most
``_JOINED`` bytes, or one row's value if that is larger, and a byte for each element of a list. Figures are in
``benchmarks/results/fingerprint.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import starmap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from datasets import Dataset

READ_ROWS = 10_000
_JOINED = 1 << 26  # bytes of a column that are made one array; Arrow makes none of 2 GiB of texts or files
GATHERED = 20_000
_FEW = 100  # rows are gathered, too, if they are fewer than this part of the stored ones
_VIEWS = {"string_view": "large_string", "binary_view": "large_binary"}  # few functions of Arrow know views
_SHOWN_AFTER = 2  # seconds until a progress bar appears

Parts = list[tuple[Any, "npt.NDArray[np.bool_] | None"]]
"""A column, array by array, each with which of its values are there, None for all; others are within nulls."""


def contents_digest(dataset: Dataset) -> str:
    """
    Digest the values of all rows, in their order.

    Args:
        dataset (Dataset): The rows; all of its columns count.

    Returns:
        str: 32 hexadecimal digits.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: If rows cannot be read, or Arrow cannot do it.
    """
    from datasets.utils import tqdm
    from xxhash import xxh3_128

    digest = xxh3_128(json.dumps([dataset.column_names, len(dataset)]).encode())
    with tqdm(total=len(dataset), unit=" rows", desc="Digesting the training data", delay=_SHOWN_AFTER) as bar:
        for table in _tables(dataset):
            for column in table.columns:
                for piece in _pieces([(array, None) for array in _arrays(column)]):
                    digest.update(piece)
            bar.update(len(table))
    return str(digest.hexdigest())


def _tables(dataset: Dataset) -> Iterator[Any]:
    """The rows, in tables of ``READ_ROWS``; or what is stored, and then the numbers of the rows among it."""
    stored, indices = dataset.data, dataset._indices
    if indices is not None and (len(indices) <= GATHERED or len(indices) * _FEW <= len(stored)):
        # Rows are not copied: each is an array of its own
        yield from dataset.with_format("arrow").iter(batch_size=READ_ROWS)
        return
    for table in (stored, indices):
        for low in range(0, len(table) if table is not None else 0, READ_ROWS):
            yield table.fast_slice(low, min(READ_ROWS, len(table) - low))


def _arrays(column: Any) -> Iterator[Any]:
    """A column as one array if it is small, or else as it is stored, in parts that are small, or of one row."""
    if column.nbytes <= _JOINED:
        joined = column.combine_chunks()
        yield from getattr(joined, "chunks", [joined])
        return
    parts = column.chunks[::-1]
    while parts:
        part = parts.pop()
        if part.nbytes <= _JOINED or len(part) < 2:
            yield part
        else:
            half = len(part) // 2
            parts += [part[half:], part[:half]]


def _pieces(parts: Parts) -> Iterator[Any]:
    """The values of a column as bytes: number of rows, which of them are null, and the others."""
    parts = [(_plain(array), there) for array, there in parts]
    valid = [(array, _not_null(array, there)) for array, there in parts]
    rows, values = (sum(starmap(_count, counted)) for counted in (parts, valid))
    yield f"{rows} {rows - values} ".encode()
    if values < rows:
        nulls = ((array.is_null().to_numpy(zero_copy_only=False), there) for array, there in parts)
        yield from _bits(starmap(_chosen, nulls))
    if parts:
        yield from _values(valid, parts[0][0].type)


def _plain(array: Any) -> Any:
    """An array of the same values, of a type that the functions here know."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return array.cast(_VIEWS[str(array.type)]) if str(array.type) in _VIEWS else array


def _not_null(array: Any, there: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
    if not array.null_count:
        return there
    valid: npt.NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid if there is None else valid & there


def _count(array: Any, there: npt.NDArray[np.bool_] | None) -> int:
    return len(array) if there is None else int(there.sum())


def _chosen(values: npt.NDArray[Any], there: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
    return values if there is None else values[there]


def _bits(pieces: Iterable[npt.NDArray[np.bool_]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Eight to a byte, wherever a piece ends."""
    rest = np.empty(0, dtype=np.bool_)
    for piece in pieces:
        bits = np.concatenate([rest, piece])
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole])
        rest = bits[whole:]
    yield np.packbits(rest)


def _values(parts: Parts, kind: Any) -> Iterator[Any]:
    """The values of a column that are there."""
    import pyarrow as pa

    types = pa.types
    if types.is_null(kind):
        return
    if types.is_struct(kind):
        yield from _fields(parts, [field.name for field in kind])
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        yield from _lists(parts)
    elif types.is_string(kind) or types.is_binary(kind):
        yield from _texts(parts, "<i4")
    elif types.is_large_string(kind) or types.is_large_binary(kind):
        yield from _texts(parts, "<i8")
    elif types.is_boolean(kind):
        flags = ((array.fill_null(False).to_numpy(zero_copy_only=False), there) for array, there in parts)
        yield from _bits(starmap(_chosen, flags))
    elif types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        yield from _numbers(parts, kind.bit_width // 8)
    else:  # maps, and what is to come
        lists = (json.dumps(_there(array, there).to_pylist(), default=repr)[1:-1] for array, there in parts)
        yield f"[{', '.join(filter(None, lists))}]".encode()


def _there(array: Any, there: npt.NDArray[np.bool_] | None) -> Any:
    import pyarrow as pa

    return array if there is None else array.filter(pa.array(there))


def _numbers(parts: Parts, width: int) -> Iterator[Any]:
    """Values of a fixed number of bytes."""
    for array, there in parts:
        if len(array):
            stored = memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]
            yield stored if there is None else np.frombuffer(stored, dtype=f"V{width}")[there].tobytes()


def _fields(parts: Parts, names: list[str]) -> Iterator[Any]:
    """The fields of structs, one after another."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if names != ["bytes", "path"]:  # files, whose digests were made without
        yield json.dumps(names).encode()
    for index, name in enumerate(names):
        field = [(array.field(index), there) for array, there in parts]
        if name == "path" and sorted(names) == ["bytes", "path"] and pa.types.is_string(field[0][0].type):
            field = [(pc.replace_substring_regex(paths, r"(?s)^.*[/\\]", ""), there) for paths, there in field]
        yield from _pieces(field)


def _lists(parts: Parts) -> Iterator[Any]:
    """The lengths of lists, 8 bytes each, and then their elements."""
    elements: Parts = []
    for array, there in parts:
        size = getattr(array.type, "list_size", None)  # of lists that have all the same
        if size is None:
            bounds = array.offsets.to_numpy()
        else:
            bounds = np.arange(array.offset, array.offset + len(array) + 1) * size
        lengths = np.diff(bounds).astype("<i8")
        yield _chosen(lengths, there).tobytes()
        values = array.values[int(bounds[0]) : int(bounds[-1])]
        elements.append((values, None if there is None else np.repeat(there, lengths)))
    yield from _pieces(elements)


def _texts(parts: Parts, offset_type: str) -> Iterator[Any]:
    """The lengths of texts, 8 bytes each, and then the texts."""
    for array, there in parts:
        yield _chosen(np.diff(_bounds(array, offset_type)).astype("<i8"), there).tobytes()
    for array, there in parts:
        if there is not None and np.diff(_bounds(array, offset_type))[~there].any():  # there is a text in a null row
            array = _there(array, there)
        data, bounds = array.buffers()[2], _bounds(array, offset_type)
        if data is not None:
            yield memoryview(data)[int(bounds[0]) : int(bounds[-1])]


def _bounds(array: Any, offset_type: str) -> npt.NDArray[Any]:
    """Where in its bytes each text of an array begins, and the last one ends."""
    offsets = array.buffers()[1]
    if not len(array) or offsets is None:
        return np.zeros(len(array) + 1, dtype=offset_type)
    return np.frombuffer(offsets, dtype=offset_type)[array.offset : array.offset + len(array) + 1]
