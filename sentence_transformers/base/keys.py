"""Repeated values of a dataset, by the value identity of upstream's ``no_duplicates``.

Guarantee: two values count as equal exactly when upstream's ``_sample_value_str`` gives them the same text, but for
64-bit collisions: among d distinct values one of probability about d² / 2⁶⁵ (d = 3,000,000: 2.4e-7; d = 10⁹: 2.7 %). A
collision keeps two rows apart that need not be; it never lets a duplicate through. A row is read as ``dataset[i]``
returns it, so a format or a transform counts; the transform then runs once over all rows.

Cost: linear in the text. Rows are read in batches of ``READ_ROWS``; 8 bytes a row and column are held for the hashes.
Plain columns are read from Arrow without the detour over ``Dataset.map``; formats, transforms and media are read as
rows.

Known bias: a transform that draws at random is identified by what it drew this once.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sentence_transformers.base.key_cache import cached
from sentence_transformers.base.repeats import RepeatedValues, group_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Hashes = npt.NDArray[np.uint64]

READ_ROWS = 10_000
READ_FORMATTED_ROWS = 1_000
_SHOWN = 60  # characters of a value that a message shows
_PLAIN = (str, int, float, bool, bytes, type(None), np.integer, np.floating, np.bool_)


def build_keys(dataset: Dataset, exclude_columns: Collection[str] = (), *, cache: bool = True) -> RepeatedValues:
    """Number the values that two or more rows of the dataset share.

    Args:
        dataset: the rows; ``select``, ``shuffle``, concatenation, formats and transforms are honoured.
        exclude_columns: names of columns whose values do not count, such as labels and ``dataset_name``.
        cache: keep the result beside the dataset's cache files, if it has any and no transform, and map it from there.

    Raises:
        ValueError: If the dataset has no random access, or a value can neither be compared nor pickled.
    """
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"Planned batches need random access to the rows, got {type(dataset).__name__}; load the data as a "
            "datasets.Dataset (streaming=False), or use another batch sampler."
        )
    excluded = frozenset(exclude_columns)

    def build() -> RepeatedValues:
        return group_rows(hash_values(dataset, excluded))

    folder = cache_folder(dataset) if cache else None
    if folder is None:
        return build()
    view = [*_view(dataset, excluded), _state_of_files(dataset)]
    return cached(folder, dataset._fingerprint, view, len(dataset), build)


def cache_folder(dataset: Dataset) -> str | None:
    """Folder of the dataset's own cache; None for data in memory and where a transform makes the values."""
    if dataset.format["type"] == "custom" or not dataset.cache_files:
        return None
    return str(Path(dataset.cache_files[0]["filename"]).absolute().parent)


def _state_of_files(dataset: Dataset) -> str:
    """Names, sizes and times of the dataset's files, which may be written anew under the same fingerprint."""
    from xxhash import xxh3_64_hexdigest

    paths = [Path(file["filename"]) for file in dataset.cache_files]
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return str(xxh3_64_hexdigest(repr(state).encode()))


def _view(dataset: Dataset, excluded: Collection[str]) -> list[str]:
    """What of the dataset counts, for the cache: format, its arguments, and columns."""
    form = dataset.format
    return [str(form["type"]), repr(form["format_kwargs"]), *_counting(dataset, excluded)]


def _counting(dataset: Dataset, excluded: Collection[str]) -> list[str]:
    """Columns that ``dataset[i]`` returns, but the excluded ones."""
    form = dataset.format
    shown = dataset.column_names if form["output_all_columns"] else form["columns"]
    return [name for name in shown if name not in excluded]


def hash_values(dataset: Dataset, excluded: Collection[str] = ()) -> Hashes:
    """64-bit hashes of all values that count, uint64 of shape (rows, columns)."""
    if dataset.format["type"] is not None:
        return _collect(dataset, _formatted_batches(dataset, excluded))
    columns = _counting(dataset, excluded)
    plain = [name for name in columns if _is_plain(dataset, name)]
    media = [name for name in columns if name not in plain]
    if not media:
        return _collect(dataset, _arrow_batches(dataset, plain), len(plain))
    if not plain:
        return _collect(dataset, _formatted_batches(dataset.select_columns(media), excluded), len(media))
    return np.concatenate(
        [hash_values(dataset.select_columns(plain)), hash_values(dataset.select_columns(media))], axis=1
    )


def _collect(dataset: Dataset, batches: Iterator[list[Hashes]], columns: int | None = None) -> Hashes:
    """Batches of one vector a column, as an array of shape (rows, columns), with a progress bar."""
    from datasets.utils import tqdm

    hashes = None if columns is None else np.empty((len(dataset), columns), dtype=np.uint64)
    low = 0
    with tqdm(total=len(dataset), unit=" rows", desc="Hashing values for planned batches", delay=2) as bar:
        for batch in batches:
            if hashes is None:
                hashes = np.empty((len(dataset), len(batch)), dtype=np.uint64)
            size = len(batch[0]) if batch else 0
            for column, part in enumerate(batch):
                hashes[low : low + size, column] = part
            low += size
            bar.update(size)
    return np.empty((len(dataset), 0), dtype=np.uint64) if hashes is None else hashes


def _is_plain(dataset: Dataset, name: str) -> bool:
    """Whether Arrow's Python values are those that the dataset returns."""
    from datasets.features.features import require_decoding

    feature = dataset.features[name]
    return not require_decoding(feature) and not _holds_extension(dataset.data.schema.field(name).type)


def _holds_extension(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return isinstance(kind, pa.BaseExtensionType) or any(
        _holds_extension(kind.field(index).type) for index in range(kind.num_fields)
    )


def _arrow_batches(dataset: Dataset, columns: list[str]) -> Iterator[list[Hashes]]:
    if not columns:
        return
    table: pa.Table
    for table in dataset.select_columns(columns).with_format("arrow").iter(batch_size=READ_ROWS):
        yield [_hash_arrow(table.column(name), name) for name in columns]


def _hash_arrow(column: pa.ChunkedArray, name: str) -> Hashes:
    import pyarrow as pa
    from xxhash import xxh64_intdigest

    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if is_text and not column.null_count:
        encoded = column.cast(pa.large_binary()).to_pylist()
        return np.fromiter(map(xxh64_intdigest, encoded), dtype=np.uint64, count=len(encoded))
    return _hash_python(column.to_pylist(), name)


def _formatted_batches(dataset: Dataset, excluded: Collection[str]) -> Iterator[list[Hashes]]:
    names: list[str] | None = None
    for low in range(0, len(dataset), READ_FORMATTED_ROWS):
        rows = _as_rows(dataset, low, min(low + READ_FORMATTED_ROWS, len(dataset)))
        found = [name for name in rows[0] if name not in excluded]
        names = found if names is None else names
        if any(set(row) - set(excluded) != set(names) for row in rows):
            raise ValueError(
                f"Rows {low} to {low + len(rows) - 1} do not all have the columns {names} of the first row; let the "
                "dataset's transform return the same columns for every row."
            )
        yield [_hash_python([row[name] for row in rows], name) for name in names]


def _as_rows(dataset: Dataset, low: int, high: int) -> list[dict[str, Any]]:
    """Rows as ``dataset[i]`` returns them, as upstream reads them."""
    return [dict(dataset[index]) for index in range(low, high)]


def _hash_python(values: list[Any], name: str) -> Hashes:
    from xxhash import xxh64_intdigest

    text = _text_of()
    hashes = np.empty(len(values), dtype=np.uint64)
    known: set[type] = set()
    for index, value in enumerate(values):
        try:
            _check(value, known)
            hashes[index] = xxh64_intdigest(text(value).encode("utf-8"))
        except Exception as cause:
            raise ValueError(
                f"Column {name!r} holds a {type(value).__name__} that can neither be compared nor pickled, so "
                "duplicates of it cannot be told; convert the column (Dataset.map), or leave it out of the dataset."
            ) from cause
    return hashes


def _text_of() -> Callable[[Any], str]:
    """Upstream's value identity; imported late, since upstream's module may import this one."""
    from sentence_transformers.base.sampler import _sample_value_str

    identity: Callable[[Any], str] = _sample_value_str
    return identity


def _check(value: Any, known: set[type]) -> None:
    """Raise if upstream would fall back on ``str``, which embeds an address, for a type not yet in ``known``."""
    if isinstance(value, _PLAIN):
        return
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, known)
    elif type(value) not in known:
        encoded = getattr(value, "_hf_encoded", None)
        pickle.dumps(value if encoded is None else encoded)
        known.add(type(value))


def shown_value(rows: Any, values: RepeatedValues, number: int, excluded: Collection[str] = ()) -> str:
    """A repeated value in words, as one of the first two rows that hold it has it.

    Args:
        rows: returns a row, a dict, for its number; the dataset, or several in one.
        values: the repeated values of these rows.
        number: of the value.
        excluded: names of columns whose values do not count.
    """
    text = _text_of()
    start = values.starts[number]
    row, other = (
        {text(value): value for name, value in rows[int(member)].items() if name not in excluded}
        for member in values.members[start : start + 2]
    )
    shared = [value for identity, value in row.items() if identity in other]
    shown = " or ".join(map(repr, shared)) or "one that a transform drew"
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
