"""What is said of a run that goes on: from the identity that a checkpoint keeps, and that of the run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sentence_transformers.base.continuation import changes, meaning
from sentence_transformers.base.identity import (
    DamagedIdentity,
    DataIdentity,
    OrderIdentity,
    read_identity,
    write_identity,
)

DATA = (DataIdentity("train", 130, "digest"),)
# 130 rows on 2 × 8, in epoch 1 after 4 steps; the last 2 rows of an epoch are no step of both
BEFORE = OrderIdentity(42, 1, 4, 8, 16, 2, "Default()", DATA, rows=64, taken="x", orders=("o",), accumulation=1)

LAYOUTS: dict[str, dict[str, Any]] = {
    "1 x 16": {"processes": 1, "steps": 9},
    "1 x 8, twice": {"processes": 1, "batch_size": 8, "step": 8, "steps": 17, "accumulation": 2},
    "1 x 4, four times": {"processes": 1, "batch_size": 4, "step": 16, "steps": 33, "accumulation": 4},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_rows_in_each_optimizer_step_are_a_continuation(layout: str) -> None:
    """On however many processes, in however many batches; to and fro, whether the rows are seen or not."""
    now = replace(BEFORE, **LAYOUTS[layout])
    unseen = [replace(one, rows=0, taken=None) for one in (BEFORE, now)]
    for one, other in ((BEFORE, now), (now, BEFORE), unseen, unseen[::-1]):
        assert changes(one, other) == []


def test_a_last_step_that_is_not_shared_is_no_place() -> None:
    """Stopped on one process before the last two rows, two processes go on in the next epoch."""
    before = replace(BEFORE, processes=1, steps=9, step=8, rows=128)
    assert changes(before, replace(BEFORE, epoch=2, step=0, rows=0, taken="")) == []
    assert changes(before, replace(BEFORE, epoch=1, step=0, rows=0)) == [
        "place: after 128 rows of epoch 1, now after 0"
    ]


REPORTED = {
    "more accumulated": (
        {"accumulation": 2},
        "rows in an optimizer step: 16 (batches of 16, 1 accumulated), now 32 (batches of 16, 2 accumulated)",
    ),
    "a last step dropped": ({"steps": 7}, "steps in an epoch: 8, now 7"),
    "many steps less": ({"processes": 1, "steps": 5}, "optimizer steps in an epoch: 8, now 5"),
    "another batch": ({"batch_size": 8}, "batch size over all processes: 16, now 8"),
}


@pytest.mark.parametrize("change", REPORTED)
def test_other_rows_in_a_step_are_reported(change: str) -> None:
    """However the batches are laid out."""
    fields, line = REPORTED[change]
    assert changes(BEFORE, replace(BEFORE, **fields))[0] == line


def test_arguments_that_made_no_difference_to_the_rows_are_not_reported() -> None:
    """If rows were taken, and are the same; the class and the batch size may make a difference later."""
    before = replace(BEFORE, sampler="Own(Child(batch_size=8), batch_size=8, folder='/a (1)', show=True)")
    same = before.sampler.replace("/a (1)", "/tmp/b(2)").replace("show=True", "show=False")
    assert changes(before, replace(before, sampler=same)) == []
    assert len(changes(replace(before, step=0, rows=0), replace(before, step=0, rows=0, sampler=same))) == 1
    for other in (before.sampler.replace("Child", "Other"), before.sampler.replace("size=8,", "size=4,")):
        assert changes(before, replace(before, sampler=other)) == [f"sampler: {before.sampler}, now {other}"]
    unseen = replace(BEFORE, taken=None, sampler="NoDuplicates(batch_size=8, precompute_hashes=False)")
    assert changes(unseen, replace(unseen, sampler="NoDuplicates(batch_size=8, precompute_hashes=True)")) == []


OTHER_DATA = (DataIdentity("train", 130, "another"),)
MEANINGS: dict[str, tuple[OrderIdentity, dict[str, Any], str]] = {
    "a value": (BEFORE, {"datasets": OTHER_DATA}, "the same row numbers now as then, but these rows may hold other"),
    "another order": (BEFORE, {"taken": "y"}, "some of its rows are seen twice"),
    "unseen": (replace(BEFORE, taken=None), {"datasets": OTHER_DATA}, "some of its rows may be seen twice"),
    "moved": (BEFORE, {"step": 5, "rows": 80}, "goes on at row 80 of epoch 1, so that the rows between are left out"),
    "moved and drawn anew": (BEFORE, {"step": 5, "rows": 80, "seed": 1}, "epoch 1, in what may be another order"),
    "between epochs": (replace(BEFORE, step=0, rows=0), {"seed": 1}, "No epoch was under way. Those to come may not"),
    "from between epochs": (replace(BEFORE, step=0, rows=0), {"epoch": 2}, "No epoch was under way. The run goes on"),
}


@pytest.mark.parametrize("change", MEANINGS)
def test_no_more_is_said_than_is_known(change: str) -> None:
    """What is seen is said, and what may be is said to be so."""
    before, fields, expected = MEANINGS[change]
    said = meaning(before, replace(before, **fields))
    assert expected in said
    assert ("are seen twice" in said) == (change == "another order")


def damaged() -> dict[str, str]:
    """What may have become of a file, or what another program may have written in its place."""
    whole = {"version": 1, **asdict(BEFORE)}
    data = {"name": "train", "rows": 130, "digest": 7}
    return {
        "brackets": "[" * 200_000,
        "brackets within": '{"version": ' + "[" * 200_000,
        "true for a version": json.dumps({**whole, "version": True}),
        "true for a number": json.dumps({**whole, "step": True}),
        "a number for a digest": json.dumps({**whole, "datasets": [data]}),
        "a number for an order": json.dumps({**whole, "orders": [7]}),
        "a dataset without rows": json.dumps({**whole, "datasets": [{"name": "train", "digest": None}]}),
        "a text for accumulation": json.dumps({**whole, "accumulation": "2"}),
    }


@pytest.mark.parametrize("damage", damaged())
def test_damage_is_told_in_few_words(damage: str, tmp_path: Path) -> None:
    """Whatever the file holds, it is an error that names the file, and no other."""
    (tmp_path / "order.json").write_text(damaged()[damage])
    with pytest.raises(DamagedIdentity, match=r"order\.json") as error:
        read_identity(tmp_path)
    assert len(str(error.value)) < len(str(tmp_path)) + 200


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """As it was; also by a file of before, which does not say how many batches were accumulated."""
    write_identity(tmp_path, BEFORE)
    assert read_identity(tmp_path) == BEFORE
    said = json.loads((tmp_path / "order.json").read_text())
    del said["accumulation"]
    (tmp_path / "order.json").write_text(json.dumps(said))
    before = read_identity(tmp_path)
    assert before == replace(BEFORE, accumulation=None)
    assert changes(before, BEFORE) == changes(before, replace(BEFORE, accumulation=2)) == []
