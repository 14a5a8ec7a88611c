"""The report's command: its table fits a terminal, its pictures cost no report, its refusals are one message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from sentence_transformers.order.__main__ import main
from sentence_transformers.order.report import EpochReport, OrderReport
from sentence_transformers.order.table import render

ROWS = {"nested": [[row] for row in range(40)], "none": [None] * 40, "text": [f"text {row % 9}" for row in range(40)]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A list, nothing, and texts."""
    Dataset.from_dict(ROWS).save_to_disk(tmp_path / "data")
    return tmp_path / "data"


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


# --- the table


def report_of(epochs: int, rows: int = 999_936, again: int | None = None) -> OrderReport:
    out = {"no_room": 7, "incomplete_step": 64, "past_the_end": 1}
    looked_at = [
        EpochReport(number, 1953, 7812, rows, 0, out, 7812, 1953, 7, 9, 0, f"{number:06x}", again if number else None)
        for number in range(epochs)
    ]
    fitting = {"false_negatives": 0, "duplicates": 0}
    data = {"train": 1_000_000}
    return OrderReport(data, ["text"], "DefaultBatchSampler", 4, 128, looked_at, 0, [], True, [], fitting)


def shown(report: OrderReport, width: int) -> list[str]:
    return render(report, width).splitlines()


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_table_of_many_epochs_fits_the_terminal_whole(width: int) -> None:
    """Every fingerprint is there, beside its label and below its epoch, and no line is too long or cut off."""
    lines = shown(report_of(8), width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    fingerprints = [line for line in lines if line.strip().startswith("fingerprint")]
    heads = [line for line in lines if "epoch" in line and "again" not in line]
    assert len(fingerprints) == len(heads) > 1
    for head, line in zip(heads, fingerprints):
        assert [int(name) for name in head.split()[1::2]] == [int(cell, 16) for cell in line.split()[1:]]
    assert [cell for line in fingerprints for cell in line.split()[1:]] == [f"{number:06x}" for number in range(8)]
    said = " ".join(" ".join(lines).split())
    assert all(label in said for label in ("rows used more than once", "batches with a value twice", "rows left out"))


@pytest.mark.parametrize(("rows", "asked"), [(1, False), (12, False), (13, True)])
def test_few_rows_may_come_in_one_order_twice(rows: int, asked: bool) -> None:
    """As in a run, nothing is suspected then."""
    assert ("does the sampler follow the epoch" in str(report_of(2, rows, again=0))) is asked


# --- the pictures


def test_the_first_column_that_can_be_told_apart_is_shown(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither lists nor nothing; where there is no such column, there is no such picture."""
    folder = data.with_name("pictures")
    assert run(capsys, data, "--columns", "nested", "none", "text", "--pictures", folder, "--json")[0] == 0
    assert "values of text" in (folder / "values.svg").read_text("utf-8")
    other = data.with_name("others")
    status, printed, said = run(capsys, data, "--columns", "nested", "--pictures", other, "--json")
    assert (status, json.loads(printed)["rows"]) == (0, 40)
    assert "No column has values that can be told apart" in said
    assert not (other / "values.png").exists()
    assert (other / "order.png").exists()


@pytest.mark.parametrize(
    ("column", "folder", "message"),
    [
        ("nested", "pictures", "The values of 'nested' cannot be told apart"),
        ("none", "pictures", "Each value of 'none' is None"),
        ("text", "taken", "taken is no folder, nor can it become one"),
        ("text", "taken/pictures", "pictures is no folder, nor can it become one"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_work(
    column: str, folder: str, message: str, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """No epoch is looked at."""
    monkeypatch.setattr("sentence_transformers.order.__main__.order_report", None)
    data.with_name("taken").touch()
    status, printed, said = run(capsys, data, "--pictures", data.with_name("x").parent / folder, "--column", column)
    assert (status, printed) == (2, "")
    assert message in said


def test_a_drawing_that_fails_leaves_the_report(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is printed first."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("sentence_transformers.order.gallery.order_map", full)
    status, printed, said = run(capsys, data, "--pictures", data.with_name("pictures"), "--json")
    assert (status, json.loads(printed)["rows"]) == (2, 40)
    assert said.endswith("order report: No space left on device\n")


def test_a_column_of_two_kinds_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name; without a name, the next one is shown."""
    Dataset.from_dict({"a": [1, 2], "b": ["x", "y"]}).save_to_disk(tmp_path / "one")
    Dataset.from_dict({"a": ["u", "v"], "b": ["x", "y"]}).save_to_disk(tmp_path / "other")
    call = (tmp_path / "one", tmp_path / "other", "--batch-size", 1, "--json", "--pictures", tmp_path / "pictures")
    assert "'a' is not of one kind in all datasets" in run(capsys, *call, "--column", "a")[2]
    assert run(capsys, *call)[0] == 0
    assert "values of b" in (tmp_path / "pictures/values.svg").read_text("utf-8")


# --- splits


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[dict[str, int], str]:
    status, printed, said = run(capsys, *arguments, "--json")
    assert status == 0, said
    return json.loads(printed)["datasets"], said


def test_of_saved_splits_the_one_to_train_on_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And it is said; ``--split`` takes another; datasets of other names are datasets of one run."""
    parts = {name: Dataset.from_dict({"text": list("abcdef")[:rows]}) for name, rows in (("a", 6), ("b", 4), ("c", 2))}
    splits, several = tmp_path / "splits", tmp_path / "several"
    DatasetDict(zip(("train", "validation", "test"), parts.values())).save_to_disk(splits)
    DatasetDict(parts).save_to_disk(several)
    datasets, said = rows_of(capsys, splits)
    assert datasets == {"train": 6}
    assert "has the splits train, validation, test: looking at train. --split chooses another." in said
    assert rows_of(capsys, splits, "--split", "validation")[0] == {"train": 4}
    assert rows_of(capsys, several)[0] == {"a": 6, "b": 4, "c": 2}
    assert rows_of(capsys, several, "--split", "c")[0] == {"train": 2}
    assert "splits has no split dev. It has train, validation, test." in run(capsys, splits, "--split", "dev")[2]
    parts["a"].save_to_disk(tmp_path / "plain")
    assert "It is one dataset: leave --split out" in run(capsys, tmp_path / "plain", "--split", "train")[2]


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("[1]", "holds a list, not a JSON object of training arguments"),
        ("{", "could not be read as JSON"),
        ('{"no_such": 1}', "Use the names and kinds of the training arguments"),
    ],
)
def test_arguments_that_are_none_are_refused(
    arguments: str, message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the file, and what is wrong."""
    file = data.with_name("arguments.json")
    file.write_text(arguments)
    status, _, said = run(capsys, data, "--args", file, "--json")
    assert status == 2
    assert said.startswith(f"order report: {file}")
    assert message in said


def test_arguments_of_the_right_kind_are_taken(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole numbers, truth, null where it may be, and what the report does not read."""
    file = data.with_name("arguments.json")
    file.write_text(
        '{"per_device_train_batch_size": 4, "data_seed": null, "dataloader_drop_last": true, "learning_rate": 2e-5, '
        '"warmup_steps": 10, "accelerator_config": {"split_batches": true}, "include_num_input_tokens_seen": true}'
    )
    status, printed, said = run(capsys, data, "--columns", "text", "--args", file, "--json")
    assert (status, said) == (0, "")
    assert json.loads(printed)["batch_size"] == 4


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("json:dumps", "json:dumps made no epoch of batches: TypeError: "),
        ("collections:OrderedDict", "collections:OrderedDict made no epoch of batches: "),
        ("strange:Words", "strange:Words made no epoch of batches: "),
        ("json:__doc__", "json:__doc__ is a str: name a class or function that makes a batch sampler"),
    ],
)
def test_what_makes_no_batch_sampler_is_named(
    sampler: str, message: str, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was raised and where, and what it should take and yield."""
    monkeypatch.chdir(data.parent)
    Path("strange.py").write_text("def Words(dataset, **_):\n    return [['a', 'b']]\n")
    status, printed, said = run(capsys, data, "--columns", "text", "--batch-sampler", sampler, "--json")
    assert (status, printed) == (2, "")
    assert message in said
    if "made no epoch" in message:
        assert ", line " in said
        assert "yields lists of row numbers" in said


def test_a_file_without_rows_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A csv of a header alone."""
    (tmp_path / "bare.csv").write_text("anchor,positive\n")
    status, _, said = run(capsys, tmp_path / "bare.csv")
    assert (status, said.splitlines()[-1]) == (
        2,
        f"order report: {tmp_path}/bare.csv holds no row: an epoch needs one or more. Is it the file that you mean?",
    )


@pytest.mark.wide
def test_the_command_loads_each_module_once(tmp_path: Path) -> None:
    """`python -m sentence_transformers.order` prints a report."""
    (tmp_path / "words.csv").write_text("word\na\nb\n")
    command = [sys.executable, "-m", "sentence_transformers.order", "words.csv", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(done.stdout)["rows"] == 2 and "RuntimeWarning" not in done.stderr
