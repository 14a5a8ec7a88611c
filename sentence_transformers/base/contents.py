"""A digest of a dataset's contents: which values are in which row.

Guarantee: two datasets that are stored alike have the same digest exactly if they have the same columns, in the same
order, and the same values in the same rows (but for a chance of 1 in 2¹²⁸). A row that was changed, left out, added,
or has changed places with another is seen, wherever it is. Chunks, files or memory, cache folders, the fingerprint of
``datasets``, ``string`` or ``large_string`` do not count.

Known bias: of more than ``GATHERED`` rows that an indices mapping orders (``shuffle``, ``filter``, ``select``), what
is digested are the stored rows and the mapping, since gathering each row costs a thousand times as much. Such a
dataset and its ``flatten_indices()`` are then told apart, though their rows are the same. The same script makes the
same.

What is digested: the stored values; of a file (an image, a recording), its bytes and its name, not the folder that it
lies in, which may be another on each machine and in each job. A transform (``with_transform``), a format, and what a
column of paths points to are not looked at. Rows of an ``IterableDataset`` cannot be digested without reading
the stream to its end.

Cost: each stored byte is read once, at the speed of memory: about 0.01 s for a million rows of three short texts.
What is not in memory has to be read from disk; a progress bar appears after two seconds. Figures are in
``benchmarks/results/fingerprint.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

READ_ROWS = 10_000
GATHERED = 20_000
_FEW = 100  # rows are gathered, too, if they are fewer than this part of the stored ones
_VIEWS = {"string_view": "large_string", "binary_view": "large_binary"}  # few functions of Arrow know views
_SHOWN_AFTER = 2  # seconds until a progress bar appears


def contents_digest(dataset: Dataset) -> str:
    """
    Digest the values of all rows, in their order.

    Args:
        dataset (Dataset): The rows; all of its columns count.

    Returns:
        str: 32 hexadecimal digits.
    """
    from datasets.utils import tqdm
    from xxhash import xxh3_128

    digest = xxh3_128(json.dumps([dataset.column_names, len(dataset)]).encode())
    with tqdm(total=len(dataset), unit=" rows", desc="Digesting the training data", delay=_SHOWN_AFTER) as bar:
        for table in _tables(dataset):
            for column in table.columns:
                for piece in _pieces(column.combine_chunks()):
                    digest.update(piece)
            bar.update(len(table))
    return str(digest.hexdigest())


def _tables(dataset: Dataset) -> Iterator[Any]:
    """The rows, in tables of ``READ_ROWS``; or what is stored, and then the numbers of the rows among it."""
    stored, indices = dataset.data, dataset._indices
    if indices is not None and (len(indices) <= GATHERED or len(indices) * _FEW <= len(stored)):
        yield from dataset.with_format("arrow").iter(batch_size=READ_ROWS)
        return
    for table in (stored, indices):
        for low in range(0, len(table) if table is not None else 0, READ_ROWS):
            yield table.fast_slice(low, min(READ_ROWS, len(table) - low))


def _pieces(array: Any) -> Iterator[Any]:
    """The values of an array as bytes: number of rows, which of them are null, and the others."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):  # too long for a single array
        for chunk in array.chunks:
            yield from _pieces(chunk)
        return
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if str(array.type) in _VIEWS:
        array = array.cast(_VIEWS[str(array.type)])
    yield f"{len(array)} {array.null_count} ".encode()
    if array.null_count:
        yield np.packbits(array.is_null().to_numpy(zero_copy_only=False))
        array = array.drop_null()
    yield from _values(array, array.type)


def _values(array: Any, kind: Any) -> Iterator[Any]:
    """The values of an array without nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    if types.is_null(kind):
        return
    if types.is_struct(kind):
        names = [field.name for field in kind]
        for name, values in zip(names, array.flatten()):
            if name == "path" and sorted(names) == ["bytes", "path"] and types.is_string(values.type):
                values = pc.replace_substring_regex(values, r"(?s)^.*[/\\]", "")
            yield from _pieces(values)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        yield from _values(pc.list_value_length(array).cast(pa.int64()), pa.int64())
        yield from _pieces(array.flatten())
    elif types.is_string(kind) or types.is_binary(kind):
        yield from _texts(array, "<i4")
    elif types.is_large_string(kind) or types.is_large_binary(kind):
        yield from _texts(array, "<i8")
    elif types.is_boolean(kind):
        yield np.packbits(array.to_numpy(zero_copy_only=False))
    elif types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        width = kind.bit_width // 8
        if len(array):
            yield memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]
    else:  # maps, and what is to come
        yield json.dumps(array.to_pylist(), default=repr).encode()


def _texts(array: Any, offset_type: str) -> Iterator[Any]:
    """The lengths of texts, 8 bytes each, and then the texts."""
    if not len(array):
        return
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=offset_type)[array.offset : array.offset + len(array) + 1]
    yield np.diff(bounds).astype("<i8").data
    if data is not None:
        yield memoryview(data)[int(bounds[0]) : int(bounds[-1])]
