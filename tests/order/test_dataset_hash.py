"""The digest of a dataset's values: the same however rows are stored, of any size, and never the end of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, Features, Image, load_from_disk
from guarded import attempt, run_of

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, continued
from sentence_transformers.base import contents, guard

FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
ROWS = 300


def every(row: int, part: int, value: Any) -> Any:
    """None in one row of so many."""
    return None if row % part == 0 else value


def table() -> Any:
    """Columns of all the kinds that are digested in their own way, with nulls at every depth."""
    texts = [every(row, 7, "é" * (row % 4) + str(row)) for row in range(ROWS)]
    lists = [every(row, 5, [every(row + i, 3, f"{i}") for i in range(row % 4)]) for row in range(ROWS)]
    files = [
        every(row, 6, {"bytes": every(row, 4, b"x" * row), "path": every(row, 9, f"/a/{row}")}) for row in range(ROWS)
    ]
    return pa.table(
        {
            "text": pa.array(texts),
            "large": pa.array(texts, pa.large_string()),
            "number": pa.array([every(row, 5, row) for row in range(ROWS)], pa.int16()),
            "flag": pa.array([every(row, 5, row % 3 == 0) for row in range(ROWS)]),
            "list": pa.array(lists),
            "flags": pa.array([every(row, 4, [True, None, False][: row % 4]) for row in range(ROWS)]),
            "pair": pa.array([every(row, 3, [row, None]) for row in range(ROWS)], pa.list_(pa.int32(), 2)),
            "file": pa.array(files, FILE),
            "files": pa.array([every(row, 4, [files[row], files[0]]) for row in range(ROWS)], pa.list_(FILE)),
            "map": pa.array([every(row, 4, [("a", row)]) for row in range(ROWS)], pa.map_(pa.string(), pa.int64())),
        }
    )


def hidden() -> Any:
    """Structs and lists that are null, though there is something where they would have it."""
    null = pa.array([row % 3 == 0 for row in range(ROWS)])
    texts = pa.array([every(row, 7, f"text {row}") for row in range(ROWS)])
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(range(2 * ROWS)), 2)
    lists = pa.ListArray.from_arrays(pa.array(range(0, 2 * ROWS + 1, 2), pa.int32()), pa.array(range(2 * ROWS)))
    structs = pa.StructArray.from_arrays([texts, pairs, lists], ["text", "pair", "list"], mask=null)
    return pa.table({"struct": structs})


class Rows:
    """As much of a dataset as is looked at, with columns of any type."""

    def __init__(self, stored: Any) -> None:
        from datasets.table import InMemoryTable

        self.data, self._indices, self.column_names = InMemoryTable(stored), None, stored.column_names

    def __len__(self) -> int:
        return len(self.data)


def digest(stored: Any) -> str:
    """Of a table."""
    return contents.contents_digest(Rows(stored))  # type: ignore[arg-type]


DIGESTS = {
    "text": "cdaf9d286e9260cf0836aa8a2b30ad39",
    "list": "4514e827eedfa5c739b615d5772cf51a",
    "file": "1dc79a3bd5533e86f1235ef1cdb5cdbe",
}


@pytest.mark.parametrize("column", DIGESTS)
def test_digests_are_those_of_checkpoints_of_before(column: str) -> None:
    """A checkpoint is compared with later runs, perhaps with another version of this package."""
    assert digest(table().select([column])) == DIGESTS[column]


@pytest.mark.parametrize("joined", [0, 40, 2_000])
@pytest.mark.parametrize("make", [table, hidden])
def test_no_more_is_joined_than_a_limit_and_the_digest_is_the_same(
    make: Any, joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, in chunks, cut off from other rows, and with nulls packed anew: one digest, whatever is joined."""
    rows = make()
    chunked = pa.concat_tables([rows.slice(low, 77) for low in range(0, ROWS, 77)])
    taken = rows.take(pa.array(range(ROWS)))
    views = [rows, chunked, taken, pa.concat_tables([rows.slice(5), rows]).combine_chunks().slice(ROWS - 5)]
    for name in rows.column_names:
        (whole,) = {digest(view.select([name])) for view in views}
        with monkeypatch.context() as limited:
            limited.setattr(contents, "_JOINED", joined)
            assert {digest(view.select([name])) for view in views} == {whole}


def test_the_names_in_a_struct_count() -> None:
    """A field that is renamed is another one; so is one that has changed places."""
    rows = [{"a": 1, "b": 2}], [{"a": 1, "z": 2}], [{"b": 1, "a": 2}]
    assert len({digest(pa.table({"struct": pa.array(row)})) for row in rows}) == 3


def test_large_files_are_digested_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images on disk, as stored and in another order, are not copied into memory."""
    rows = 150
    values = np.random.default_rng(0).integers(0, 256, (rows, 600_000), dtype=np.uint8)
    images = [{"bytes": value.tobytes(), "path": None} for value in values]
    dataset = Dataset(pa.table({"image": pa.array(images, FILE)})).cast(Features({"image": Image(decode=False)}))
    dataset.save_to_disk(tmp_path)
    stored = load_from_disk(str(tmp_path))
    shuffled = stored.shuffle(seed=1)
    whole = [contents.contents_digest(one) for one in (stored, shuffled)]
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    monkeypatch.setattr(contents, "_JOINED", 1 << 20)
    pa.set_memory_pool(pool)
    try:
        assert [contents.contents_digest(one) for one in (stored, shuffled)] == whole
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < 1 << 20 < stored.data.nbytes // 80


def undigested_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Has data that Arrow does not digest."""

    def fails(dataset: Any) -> str:
        raise pa.ArrowInvalid("offset overflow while concatenating arrays")

    guard.contents_digest = fails
    return runs.sentence_transformer_trainer(run, arguments, dataset)


def test_data_that_cannot_be_digested_is_said_and_trained_on(tmp_path: Path, model: str) -> None:
    """Once; also in a run that goes on from a checkpoint of one whose data could be digested."""
    run = run_of(tmp_path, model, stop_after=8)
    run_ranks(1, attempt, run)
    for now in (run_of(tmp_path / "new", model, stop_after=8), continued(run)):
        (outcome,) = run_ranks(1, attempt, replace(now, trainer=undigested_trainer))
        (message,) = outcome.messages
        assert "train_dataset" in message and "offset overflow" in message and outcome.error == ""
