"""Hashes of a dataset's values, and their cache. The oracle compares upstream's texts of ``dataset[i]`` one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, IterableDataset, List, Value, concatenate_datasets, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.base.sampler import _hash_batch, _sample_value_str

from conformance.launch import run_ranks
from sentence_transformers.planned import cache, value_hashes
from sentence_transformers.planned.value_hashes import columns_of, hash_values, placeholders_apart, shown_value

TEXTS = st.sampled_from(["", "a", "b", "1", "1.0", "None", "True", "ä", "['a']", "nan"])


def equal_by_hand(dataset: Dataset, excluded: set[str]) -> np.ndarray:
    """For each two cells, whether upstream's texts of ``dataset[i]`` are equal."""
    texts = [_sample_value_str(value) for row in dataset for name, value in row.items() if name not in excluded]
    return np.array(texts)[:, None] == np.array(texts)


def agrees(dataset: Dataset, excluded: set[str] = frozenset(), by_hand: Dataset | None = None) -> bool:
    hashes = hash_values(dataset, columns_of(dataset, excluded)).reshape(-1)
    return bool(((hashes[:, None] == hashes) == equal_by_hand(by_hand or dataset, excluded)).all())


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
    assert hash_values(dataset, [*"abc"]).astype(np.int64).tolist() == expected


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
    """Hashes are of the data as they are on disk now, not of what a fingerprint once named."""
    for texts in (["a", "a", "b", "c"], ["b", "a", "b", "b"]):
        Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "new")
        if (tmp_path / "data").exists():
            (file,) = (tmp_path / "new").glob("*.arrow")
            file.replace(tmp_path / "data" / file.name)
        else:
            (tmp_path / "new").replace(tmp_path / "data")
        hashes = hash_values(load_from_disk(tmp_path / "data"), ["text"])
    assert len(np.unique(hashes)) == 2


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
    ],
)
def test_the_view_of_the_dataset_counts(stored, change):
    """Selection, order, concatenation and columns: rows match as ``dataset[i]`` shows them."""
    assert agrees(change(stored), {"label"})


def test_stored_columns_are_read_as_stored_under_a_transform(stored):
    """What a transform makes of a column, perhaps at random, does not matter: the hashes are those of the data."""
    generator = np.random.default_rng()

    def transform(batch):
        return {"query": [text[: generator.integers(1, 5)] for text in batch["query"]], "answer": batch["answer"]}

    columns = ["query", "answer"]
    assert columns_of(stored.with_transform(transform)) == columns
    assert (hash_values(stored.with_transform(transform), columns) == hash_values(stored, columns)).all()


def test_columns_that_a_transform_makes_are_read_through_it_with_a_warning(stored, monkeypatch):
    """Beside a stored one, in the order of the rows' columns."""
    said = []
    monkeypatch.setattr(value_hashes.logger, "warning_once", said.append)
    made = stored.with_transform(
        lambda batch: {"first": [text[:2] for text in batch["query"]], "query": batch["query"]}
    )
    assert agrees(made)
    assert len(said) == 1 and "['first'] are made by a transform" in said[0]


def test_any_collection_of_rows_will_do():
    """A list of dictionaries, or a wrapper around a dataset."""

    class Wrapper:
        def __init__(self, dataset):
            self.dataset = dataset

        def __getattr__(self, name):
            return getattr(self.dataset, name)

        def __getitem__(self, index):
            return self.dataset[index]

        def __len__(self):
            return len(self.dataset)

    rows = [{"a": "x", "b": 1}, {"a": "y", "b": "x"}]
    expected = hash_values(Dataset.from_list([{"a": "x", "b": "1"}, {"a": "y", "b": "x"}]), ["a", "b"]).tolist()
    assert columns_of(rows) == ["a", "b"] and hash_values(rows, ["a", "b"]).tolist() == expected
    wrapped = Wrapper(Dataset.from_dict({"a": ["x", "y"]}))
    assert hash_values(wrapped, columns_of(wrapped)).tolist() == [row[:1] for row in expected]


def test_reading_in_small_batches_changes_nothing(stored, monkeypatch):
    """The result does not depend on how many rows are read at a time."""
    expected = hash_values(stored.shuffle(seed=3), ["query", "answer"], cache=False)
    monkeypatch.setattr(value_hashes, "READ_ROWS", 7)
    assert (hash_values(stored.shuffle(seed=3), ["query", "answer"], cache=False) == expected).all()


def test_columns_that_do_not_count_are_left_out(stored):
    """Labels repeat without keeping rows apart; all columns may be excluded."""
    assert columns_of(stored, {"label", "dataset_name"}) == ["query", "answer"]
    assert hash_values(stored, []).shape == (200, 0)


def test_images_are_identified_by_content(tmp_path):
    """Equal pictures match, whether stored in the dataset or as files."""
    pixels = [np.full((2, 2, 3), shade, dtype=np.uint8) for shade in (0, 9, 0, 7)]
    dataset = Dataset.from_dict({"picture": pixels}, features=Features({"picture": Image()}))
    hashes = hash_values(dataset, ["picture"])[:, 0].tolist()
    assert hashes[0] == hashes[2] and len(set(hashes)) == 3
    for name, row in (("a", 0), ("b", 2), ("c", 3)):
        dataset[row]["picture"].save(tmp_path / f"{name}.png")
    files = Dataset.from_dict({"picture": [str(tmp_path / f"{name}.png") for name in "abc"]})
    hashes = hash_values(files.cast_column("picture", Image()), ["picture"])[:, 0].tolist()
    assert hashes[0] == hashes[1] != hashes[2]


def test_placeholders_get_numbers_of_their_own():
    """In the columns named, and nowhere else."""
    dataset = Dataset.from_dict({"a": ["", "x"], "b": [None, ""], "c": ["", "x"]})
    hashes = placeholders_apart(hash_values(dataset, [*"abc"]), slice(1, None))
    assert len(np.unique(hashes)) == 5 and hashes[1, 0] == hashes[1, 2]


def test_values_that_cannot_be_compared_are_named():
    """The error names column, type and way out."""
    dataset = Dataset.from_dict({"a": [1, 2]}).with_transform(lambda batch: {"made": [lambda: 0 for _ in batch["a"]]})
    with pytest.raises(ValueError, match=r"Column 'made' holds a function .*Dataset.map"):
        hash_values(dataset, ["made"])


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (
            IterableDataset.from_generator(lambda: iter([{"a": 1}])),
            r"random access .* IterableDataset.*streaming=False",
        ),
        (Dataset.from_dict({"a": []}), "no rows to plan"),
        ([1, 2], "rows that are dictionaries of columns, got a int"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_way_out(dataset, said):
    """Streams, no rows, rows without columns."""
    with pytest.raises(ValueError, match=said):
        columns_of(dataset)


def test_columns_that_change_between_rows_are_refused():
    """A transform has to return the same columns for every row."""
    dataset = Dataset.from_dict({"a": [1, 2]}).with_transform(lambda batch: {f"made{batch['a'][0]}": batch["a"]})
    with pytest.raises(ValueError, match=r"Row 1 has no columns \['made1'\]"):
        hash_values(dataset, columns_of(dataset))


def test_a_value_is_shown_in_words():
    """The one that two rows share, cut if it is long."""
    dataset = Dataset.from_dict({"a": ["x", "y"], "b": ["z" * 99, "z" * 99]})
    assert shown_value(dataset, ["a", "b"], [0, 1], length=10) == "'zzzzzzzz…"


def files_of(dataset: Dataset) -> list[Path]:
    return sorted(Path(dataset.cache_files[0]["filename"]).parent.glob("value-hashes-*.npy"))


def never(*args, **kwargs):
    raise AssertionError("read although it is cached")


def test_a_second_run_maps_the_first_ones_file(stored, monkeypatch):
    """The hashes are read from disk, mapped, without reading a text."""
    first = hash_values(stored, ["query", "answer"])
    monkeypatch.setattr(value_hashes, "_stored", never)
    second = hash_values(stored, ["query", "answer"])
    assert isinstance(second, np.memmap) and (first == second).all()


def test_each_view_has_a_file_of_its_own(stored):
    """Other rows and columns do not share a file; formats do."""
    hash_values(stored, ["query", "answer"])
    hash_values(stored, ["answer", "query"])
    hash_values(stored, ["query"])
    hash_values(stored.select(range(50)), ["query"])
    assert len(files_of(stored)) == 4


def test_data_in_memory_and_transforms_leave_no_file(stored):
    """Without a cache folder, or under a transform, nothing is written."""
    hash_values(Dataset.from_dict({"a": ["x", "x"]}), ["a"])
    hash_values(stored.with_transform(lambda batch: batch), ["query"])
    hash_values(stored, ["query"], cache=False)
    assert files_of(stored) == []


@pytest.mark.parametrize("damage", [b"", b"no array", lambda content: content[:-4], lambda content: content[:100]])
def test_a_damaged_file_is_written_anew_never_believed(stored, damage):
    """Whatever is wrong with the file, the hashes are right and the file is replaced by a sound one."""
    expected = hash_values(stored, ["query"])
    (file,) = files_of(stored)
    sound = file.read_bytes()
    file.unlink()
    file.write_bytes(damage(sound) if callable(damage) else damage)
    assert (hash_values(stored, ["query"]) == expected).all()
    assert file.read_bytes() == sound


def test_a_file_of_another_shape_is_written_anew(stored):
    """An array that is not of these rows is not believed."""
    expected = hash_values(stored, ["query"])
    (file,) = files_of(stored)
    file.unlink()
    np.save(file, expected[:5])
    assert (hash_values(stored, ["query"]) == expected).all()


@pytest.mark.parametrize("step", ["open", "lock"])
def test_a_folder_that_cannot_be_written_is_no_obstacle(stored, monkeypatch, step):
    """Hashes are computed in memory, this is logged, and no scrap is left."""
    said = []
    monkeypatch.setattr(cache.logger, "warning_once", said.append)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(cache, "write_atomically", refuse) if step == "open" else monkeypatch.setattr(
        "filelock.FileLock.acquire", refuse
    )
    assert agrees(stored)
    assert "cannot be written" in said[0]
    assert files_of(stored) == []


def test_an_interrupted_write_leaves_nothing_behind(stored, monkeypatch):
    """The file appears complete or not at all."""

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hash_values(stored, ["query"])
    folder = Path(stored.cache_files[0]["filename"]).parent
    assert [path for path in folder.iterdir() if "value-hashes" in path.name and path.suffix != ".lock"] == []


def build_and_count(path: str) -> int:
    built = []
    stored = value_hashes._stored
    value_hashes._stored = lambda *args: built.append(1) or stored(*args)
    hash_values(load_from_disk(path), ["query"])
    return len(built)


def test_of_several_processes_one_builds(stored):
    """The ranks of a node wait for the one that writes, then map its file."""
    folder = str(Path(stored.cache_files[0]["filename"]).parent)
    assert sum(run_ranks(3, build_and_count, folder)) == 1
