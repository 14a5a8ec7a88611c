"""Equal rows have equal hashes, however they are stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, Image, concatenate_datasets, load_dataset, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st

from sentence_transformers.order.dataset_hash import SAMPLED_BYTES, dataset_hash

ROWS = 3_000


def every(row: int, part: int, value: Any) -> Any:
    """None in one row of so many."""
    return None if row % part == 0 else value


def dataset() -> Dataset:
    """Columns of several kinds, with nulls at every depth."""
    return Dataset.from_dict(
        {
            "text": [every(row, 7, f"é {row}") for row in range(ROWS)],
            "number": list(range(ROWS)),
            "score": [row / 7 for row in range(ROWS)],
            "list": [every(row, 5, [every(row + i, 3, f"{i}") for i in range(row % 4)]) for row in range(ROWS)],
            "pair": [{"a": row, "b": every(row, 3, "x")} for row in range(ROWS)],
            "time": [datetime(2020, 1, 1 + row % 28) for row in range(ROWS)],
        }
    )


def saved(rows: Dataset, folder: Path) -> Dataset:
    rows.save_to_disk(folder / "saved")
    return load_from_disk(folder / "saved")


def parquet(rows: Dataset, folder: Path) -> Dataset:
    rows.to_parquet(folder / "rows.parquet", batch_size=77)
    return load_dataset("parquet", data_files=str(folder / "rows.parquet"), split="train", cache_dir=str(folder))


def shuffled_back(rows: Dataset, folder: Path) -> Dataset:
    order = rows.shuffle(seed=3)
    numbers = order["number"][:]
    return order.select([numbers.index(row) for row in range(ROWS)])


STORED: dict[str, Callable[[Dataset, Path], Dataset]] = {
    "saved and loaded": saved,
    "parquet in small row groups": parquet,
    "selected": lambda rows, _: rows.select(list(range(ROWS))),
    "shuffled and sorted by selection": shuffled_back,
    "concatenated": lambda rows, _: concatenate_datasets([rows.select(range(900)), rows.select(range(900, ROWS))]),
    "mapped in other batches": lambda rows, _: rows.map(lambda row: row, batched=True, batch_size=123),
    "flattened": lambda rows, folder: shuffled_back(rows, folder).flatten_indices(),
    "formatted": lambda rows, _: rows.with_format("numpy"),
    "transformed": lambda rows, _: rows.with_transform(lambda _: {"text": ["drawn"]}),
    "with large strings": lambda rows, _: Dataset(
        rows.data.table.set_column(0, "text", rows.data.table.column("text").cast(pa.large_string()))
    ),
}


@pytest.mark.parametrize("rows", [100, 1_000, None])
@pytest.mark.parametrize("stored", STORED)
def test_equal_rows_are_equal_however_they_are_stored(stored: str, rows: int | None, tmp_path: Path) -> None:
    """Sampled or whole."""
    plain = dataset()
    assert dataset_hash(STORED[stored](plain, tmp_path), rows) == dataset_hash(plain, rows)


@settings(deadline=None)
@given(row=st.integers(0, ROWS - 1))
def test_one_other_value_is_seen_by_the_whole_hash(row: int) -> None:
    """Wherever it is; so are two rows that have changed places."""
    texts = [f"text {number}" for number in range(ROWS)]
    plain = dataset_hash(Dataset.from_dict({"text": texts}), rows=None)
    changed = [*texts[:row], "another", *texts[row + 1 :]]
    assert dataset_hash(Dataset.from_dict({"text": changed}), rows=None) != plain
    swapped = [texts[-1 - row], *texts[1:]]
    assert (dataset_hash(Dataset.from_dict({"text": swapped}), rows=None) == plain) == (row == ROWS - 1)


def test_columns_rows_and_the_first_and_last_value_are_seen_by_the_sample() -> None:
    """Others are seen if they are among the sampled ones."""
    texts = [f"text {number}" for number in range(ROWS)]
    variants = [texts, texts[:-1], ["other", *texts[1:]], [*texts[:-1], "other"]]
    hashes = {dataset_hash(Dataset.from_dict({"text": one}), 10) for one in variants}
    hashes.add(dataset_hash(Dataset.from_dict({"another": texts}), 10))
    assert len(hashes) == 5


def test_a_look_at_large_values_ends() -> None:
    """After so many bytes of values: what comes later is not read."""
    large = b"x" * (SAMPLED_BYTES // 3)
    rows = [{"file": large, "n": row} for row in range(8)]
    changed = [*rows[:-1], {"file": large, "n": 99}]
    assert dataset_hash(Dataset.from_list(rows)) == dataset_hash(Dataset.from_list(changed))
    assert dataset_hash(Dataset.from_list(rows), None) != dataset_hash(Dataset.from_list(changed), None)


def test_the_folder_of_a_file_does_not_count() -> None:
    """Its bytes and its name do."""

    def files(path: str, content: bytes = b"1") -> Dataset:
        rows = [{"image": {"bytes": content, "path": path}}]
        return Dataset.from_list(rows).cast_column("image", Image(decode=False))

    assert dataset_hash(files("/a/x.png")) == dataset_hash(files("/b/c/x.png")) == dataset_hash(files("D:\\x.png"))
    assert len({dataset_hash(one) for one in (files("/a/x"), files("/a/y"), files("/a/x", b"2"))}) == 3
