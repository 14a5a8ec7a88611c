"""Keys of a dataset's values, and their cache. The oracle compares upstream's texts of ``dataset[i]`` one by one."""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, IterableDataset, List, Value, concatenate_datasets, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.base.sampler import _hash_batch, _sample_value_str

from sentence_transformers.base import key_cache, keys
from sentence_transformers.planned.duplicates import Duplicates
from sentence_transformers.planned.value_hashes import find_duplicates

TEXTS = st.sampled_from(["", "a", "b", "1", "1.0", "None", "True", "ä", "['a']", "nan"])


def groups_by_hand(dataset: Dataset, excluded: set[str]) -> list[list[int]]:
    holders = defaultdict(set)
    for index in range(len(dataset)):
        for name, value in dataset[index].items():
            if name not in excluded:
                holders[_sample_value_str(value)].add(index)
    return sorted(sorted(rows) for rows in holders.values() if len(rows) > 1)


def groups(values: Duplicates) -> list[list[int]]:
    return sorted(values.members[values.starts[i] : values.starts[i + 1]].tolist() for i in range(values.values))


def agrees(dataset: Dataset, excluded: set[str] = frozenset()) -> bool:
    return groups(find_duplicates(dataset, excluded)) == groups_by_hand(dataset, excluded)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            TEXTS,
            st.none() | TEXTS,
            st.none() | st.integers(0, 3),
            st.none() | st.sampled_from([0.0, 1.0, float("nan")]),
            st.booleans(),
            st.lists(TEXTS, max_size=2),
            st.fixed_dictionaries({"k": st.integers(0, 1)}),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_values_are_identified_as_upstream_does(rows):
    """1 and "1", None and "None", lists, dictionaries, numbers and empty strings match as in ``no_duplicates``."""
    features = Features(
        {
            "text": Value("string"),
            "maybe": Value("string"),
            "whole": Value("int64"),
            "real": Value("float64"),
            "flag": Value("bool"),
            "many": List(Value("string")),
            "named": {"k": Value("int64")},
        }
    )
    dataset = Dataset.from_dict({name: list(column) for name, column in zip(features, zip(*rows))}, features=features)
    assert agrees(dataset)


def test_hashes_are_those_of_upstreams_hashed_variant():
    """The 64-bit hashes equal upstream's, bit for bit."""
    dataset = Dataset.from_dict({"a": ["x", "", "ä"], "b": [[1, 2], [3], []], "c": [None, 1.5, 2.0]})
    expected = _hash_batch(dataset[:], dataset.column_names, set())["__hashes"]
    assert keys.hash_values(dataset).astype(np.int64).tolist() == expected


@pytest.fixture
def stored(tmp_path: Path) -> Dataset:
    """A memory-mapped dataset with repeated values in two columns."""
    Dataset.from_dict(
        {
            "query": [f"q{i % 40}" for i in range(200)],
            "answer": [f"q{i % 70}" for i in range(200)],
            "label": [i % 2 for i in range(200)],
        }
    ).save_to_disk(tmp_path / "data")
    return load_from_disk(tmp_path / "data")


def test_a_file_written_anew_under_the_same_fingerprint_is_read_anew(tmp_path):
    """Keys are of the data as they are on disk now, not of what a fingerprint once named."""
    for texts in (["a", "a", "b", "c"], ["b", "a", "b", "b"]):
        Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "new")
        if (tmp_path / "data").exists():
            (file,) = (tmp_path / "new").glob("*.arrow")
            file.replace(tmp_path / "data" / file.name)
        else:
            (tmp_path / "new").replace(tmp_path / "data")
        largest = find_duplicates(load_from_disk(tmp_path / "data")).largest
    assert largest == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: data.select([5, 3, 3, 199, 45]),
        lambda data: data.select(range(10, 60)),
        lambda data: data.shuffle(seed=1),
        lambda data: data.shuffle(seed=1).select(range(50)).sort("query"),
        lambda data: concatenate_datasets([data, data.shuffle(seed=2), data.select(range(9))]),
        lambda data: concatenate_datasets(
            [data, data.select_columns("query").rename_column("query", "again")], axis=1
        ),
        lambda data: data.with_format("numpy"),
        lambda data: data.with_format("arrow").with_format(None, columns=["query"]),
        lambda data: data.with_transform(lambda batch: {"query": [text[:2] for text in batch["query"]]}),
    ],
)
def test_the_view_of_the_dataset_counts(stored, change):
    """Selection, order, concatenation, formats and transforms: rows match as ``dataset[i]`` shows them."""
    assert agrees(change(stored), {"label"})


def test_reading_in_small_batches_changes_nothing(stored, monkeypatch):
    """The result does not depend on how many rows are read at a time."""
    expected = groups(find_duplicates(stored.shuffle(seed=3), cache=False))
    monkeypatch.setattr(keys, "READ_ROWS", 7)
    assert groups(find_duplicates(stored.shuffle(seed=3), cache=False)) == expected


def test_excluded_columns_do_not_count(stored):
    """Labels repeat without keeping rows apart; all columns may be excluded."""
    assert agrees(stored, {"label", "dataset_name"})
    everything = find_duplicates(stored, set(stored.column_names))
    assert (everything.rows, everything.values) == (200, 0)


def test_images_are_identified_by_content():
    """Equal pictures match although each access decodes a new object."""
    pixels = [np.full((2, 2, 3), shade, dtype=np.uint8) for shade in (0, 9, 0, 7)]
    dataset = Dataset.from_dict(
        {"picture": pixels, "text": list("abcd")}, features=Features({"picture": Image(), "text": Value("string")})
    )
    assert groups(find_duplicates(dataset)) == [[0, 2]]


def test_values_that_cannot_be_compared_are_named():
    """The error names column, type and way out."""
    dataset = Dataset.from_dict({"a": [1, 2]}).with_transform(lambda batch: {"made": [lambda: 0 for _ in batch["a"]]})
    with pytest.raises(ValueError, match=r"Column 'made' holds a function .*Dataset.map"):
        find_duplicates(dataset)


def test_streams_are_refused_with_a_way_out():
    """Without random access there is no plan."""
    with pytest.raises(ValueError, match=r"IterableDataset.*streaming=False"):
        find_duplicates(IterableDataset.from_generator(lambda: iter([{"a": 1}])))


def test_columns_that_change_between_rows_are_refused():
    """A transform has to return the same columns for every row."""
    dataset = Dataset.from_dict({"a": [1, 2]}).with_transform(lambda batch: {f"made{batch['a'][0]}": batch["a"]})
    with pytest.raises(ValueError, match="do not all have the columns"):
        find_duplicates(dataset)


def key_files(dataset: Dataset) -> list[Path]:
    return sorted(Path(keys.cache_folder(dataset)).glob("*.keys"))


def never(*args, **kwargs):
    raise AssertionError("built although it is cached")


def test_a_second_run_maps_the_first_ones_file(stored, monkeypatch):
    """The values are read from disk, mapped, without hashing anything."""
    first = find_duplicates(stored)
    monkeypatch.setattr(keys, "hash_values", never)
    second = find_duplicates(stored)
    assert groups(second) == groups(first) and (second.row_values == first.row_values).all()
    assert isinstance(second.members.base, np.memmap)


def test_each_view_has_a_file_of_its_own(stored):
    """Other rows, formats and excluded columns do not share a file; unknown excluded names do not matter."""
    find_duplicates(stored)
    find_duplicates(stored, {"label"})
    find_duplicates(stored, {"label", "dataset_name"})
    find_duplicates(stored.select(range(50)))
    find_duplicates(stored.with_format("numpy"))
    find_duplicates(stored.with_format(None, columns=["query"]))
    assert len(key_files(stored)) == 5


def test_data_in_memory_and_transforms_leave_no_file(stored, tmp_path):
    """Without a cache folder, or with values made on the fly, nothing is written."""
    find_duplicates(Dataset.from_dict({"a": ["x", "x"]}))
    find_duplicates(stored.with_transform(lambda batch: batch))
    find_duplicates(stored, cache=False)
    assert key_files(stored) == []


def truncate(content: bytes) -> bytes:
    return content[:-4]


def lengthen(content: bytes) -> bytes:
    return content + b"\0\0\0\0"


def flip_a_value(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def replace_by_text(content: bytes) -> bytes:
    return b"not a key file"


def empty(content: bytes) -> bytes:
    return b""


def claim_another_dataset(content: bytes) -> bytes:
    return content.replace(b'"rows": 200', b'"rows": 201')


def claim_another_version(content: bytes) -> bytes:
    return content.replace(b'"version": 1', b'"version": 0')


def break_the_header(content: bytes) -> bytes:
    return content.replace(b'"shapes"', b'"shopes"')


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lengthen,
        flip_a_value,
        replace_by_text,
        empty,
        claim_another_dataset,
        claim_another_version,
        break_the_header,
    ],
)
def test_a_damaged_or_foreign_file_is_rebuilt_never_believed(stored, damage):
    """Whatever is wrong with the file, the values are right and the file is replaced by a sound one."""
    expected = groups(find_duplicates(stored))
    (file,) = key_files(stored)
    sound = file.read_bytes()
    file.unlink()
    file.write_bytes(damage(sound))
    assert file.read_bytes() != sound
    assert groups(find_duplicates(stored)) == expected
    assert file.read_bytes() == sound


@pytest.mark.parametrize("step", ["mkstemp", "lock"])
def test_a_folder_that_cannot_be_written_is_no_obstacle(stored, monkeypatch, step):
    """Values are built in memory, this is logged, and no scrap is left."""
    said = []
    monkeypatch.setattr(key_cache.logger, "warning_once", said.append)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "read-only")

    if step == "mkstemp":
        monkeypatch.setattr(key_cache.tempfile, "mkstemp", refuse)
    else:
        monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert agrees(stored)
    assert "cannot be written" in said[0]
    assert key_files(stored) == []


def test_an_interrupted_write_leaves_nothing_behind(stored, monkeypatch):
    """The file appears complete or not at all."""

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_duplicates(stored)
    assert [path for path in Path(keys.cache_folder(stored)).glob("*.keys*") if path.suffix != ".lock"] == []


def build_and_count(path: str) -> int:
    built = []
    hash_values = keys.hash_values
    keys.hash_values = lambda *args: built.append(1) or hash_values(*args)
    find_duplicates(load_from_disk(path))
    return len(built)


def test_of_several_processes_one_builds(stored):
    """The ranks of a node wait for the one that writes, then map its file."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        counts = pool.map(build_and_count, [keys.cache_folder(stored)] * 3, chunksize=1)
    assert sum(counts) == 1
