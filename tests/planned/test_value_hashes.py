"""Values are identified as upstream does, as they are stored, and kept beside the dataset's files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, Image, IterableDataset, List, Value, concatenate_datasets, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.base.sampler import _hash_batch, _sample_value_str

from sentence_transformers.planned import cache
from sentence_transformers.planned.duplicates import Duplicates, group_by_value
from sentence_transformers.planned.value_hashes import columns_of, hash_values, placeholders_apart

TEXTS = st.sampled_from(["", "a", "b", "1", "1.0", "None", "True", "ä", "['a']", "nan"])


def find_duplicates(dataset: Any, excluded: set[str] = frozenset()) -> Duplicates:
    return group_by_value(hash_values(dataset, columns_of(dataset, excluded)))


def groups_by_hand(dataset: Dataset, excluded: set[str]) -> list[list[int]]:
    holders = defaultdict(set)
    for index in range(len(dataset)):
        for name, value in dataset[index].items():
            if name not in excluded:
                holders[_sample_value_str(value)].add(index)
    return sorted(sorted(rows) for rows in holders.values() if len(rows) > 1)


def groups(values: Duplicates) -> list[list[int]]:
    return sorted(values.members[values.starts[i] : values.starts[i + 1]].tolist() for i in range(values.values))


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
    assert groups(find_duplicates(dataset)) == groups_by_hand(dataset, set())


def test_hashes_are_those_of_upstreams_hashed_variant():
    """The 64-bit hashes equal upstream's, bit for bit."""
    dataset = Dataset.from_dict({"a": ["x", "", "ä"], "b": [[1, 2], [3], []], "c": [None, 1.5, 2.0]})
    expected = _hash_batch(dataset[:], dataset.column_names, set())["__hashes"]
    assert hash_values(dataset, dataset.column_names).astype(np.int64).tolist() == expected


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


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: data.select([5, 3, 3, 199, 45]),
        lambda data: data.select(range(10, 60)),
        lambda data: data.shuffle(seed=1).select(range(50)).sort("query"),
        lambda data: concatenate_datasets([data, data.shuffle(seed=2), data.select(range(9))]),
        lambda data: data.with_format("numpy"),
    ],
)
def test_the_rows_of_the_dataset_count(stored: Dataset, change: Any) -> None:
    """Selection, order, concatenation and formats: rows match as ``dataset[i]`` shows them."""
    dataset = change(stored)
    assert groups(find_duplicates(dataset, {"label"})) == groups_by_hand(dataset, {"label"})


def test_stored_columns_are_read_as_stored(stored: Dataset) -> None:
    """A transform that draws at random does not decide what equals what."""
    changed = stored.with_transform(lambda batch: {"query": [str(np.random.rand()) for _ in batch["query"]]})
    assert (hash_values(changed, ["query"]) == hash_values(stored, ["query"])).all()


def test_images_are_identified_by_content() -> None:
    """Equal pictures match although each access decodes a new object."""
    pixels = [np.full((2, 2, 3), shade, dtype=np.uint8) for shade in (0, 9, 0, 7)]
    dataset = Dataset.from_dict(
        {"picture": pixels, "text": list("abcd")}, features=Features({"picture": Image(), "text": Value("string")})
    )
    assert groups(find_duplicates(dataset)) == [[0, 2]]


def test_a_placeholder_is_no_text() -> None:
    """Empty texts and None among negatives equal nothing, not even each other."""
    hashes = hash_values(Dataset.from_dict({"a": ["", "x", "x", None], "b": ["", "", None, "x"]}), ["a", "b"])
    apart = placeholders_apart(hashes, slice(1, None))
    assert (apart[:, 0] == hashes[:, 0]).all()
    assert len(np.unique(apart[:3, 1])) == 3 and apart[3, 1] == hashes[1, 0]


def test_values_that_cannot_be_compared_are_named() -> None:
    """The error names column, type and way out."""
    dataset = Dataset.from_dict({"a": [1, 2]}).with_transform(lambda batch: {"made": [lambda: 0 for _ in batch["a"]]})
    with pytest.raises(ValueError, match="Column 'made' holds a function"):
        hash_values(dataset, ["made"])


def test_streams_are_refused_with_a_way_out() -> None:
    """Without random access there is no plan."""
    with pytest.raises(ValueError, match="IterableDataset"):
        columns_of(IterableDataset.from_generator(lambda: iter([{"a": 1}])))


def _files(dataset: Dataset) -> list[Path]:
    return sorted(Path(dataset.cache_files[0]["filename"]).parent.glob("value-hashes-*.npy"))


def test_hashes_are_kept_and_mapped(stored: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are computed once, beside the dataset's files, and a damaged file is written anew."""
    expected = hash_values(stored, ["query"])
    (file,) = _files(stored)
    monkeypatch.setattr("sentence_transformers.planned.value_hashes._stored", None)
    assert (hash_values(stored, ["query"]) == expected).all()
    monkeypatch.undo()
    for damaged in (b"", b"no array", file.read_bytes()[:-8]):
        file.write_bytes(damaged)
        assert (hash_values(stored, ["query"]) == expected).all()
        assert np.load(file).tolist() == np.asarray(expected).tolist()


def test_a_file_written_anew_under_the_same_fingerprint_is_read_anew(tmp_path: Path) -> None:
    """The hashes are of the data as they are on disk now, not of what a fingerprint once named."""
    for texts in (["a", "a", "b", "c"], ["b", "a", "b", "b"]):
        Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "new")
        if (tmp_path / "data").exists():
            (file,) = (tmp_path / "new").glob("*.arrow")
            file.replace(tmp_path / "data" / file.name)
        else:
            (tmp_path / "new").replace(tmp_path / "data")
        largest = max(map(len, groups(find_duplicates(load_from_disk(tmp_path / "data")))))
    assert largest == 3


def test_a_folder_that_cannot_be_written_is_named_once(stored: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashes are then kept in memory alone."""
    said: list[str] = []

    def refuse(*args: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(cache, "write_atomically", refuse)
    monkeypatch.setattr(cache.logger, "warning_once", said.append)
    expected = hash_values(stored, ["answer"], cache=False)
    assert (hash_values(stored, ["answer"]) == expected).all()
    assert len(said) == 1 and "not kept on disk" in said[0]
