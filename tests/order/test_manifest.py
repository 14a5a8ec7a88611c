"""What is said of a run that goes on: from the manifest that a checkpoint keeps, and that of the run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sentence_transformers.order.compare import changes
from sentence_transformers.order.manifest import DamagedManifest, DatasetInfo, OrderManifest

DATA = (DatasetInfo("the dataset", 130, "hash"),)
# 130 rows on 2 × 8, in epoch 1 after 4 of 8 batches; the last 2 rows of an epoch are no step of both
BEFORE = OrderManifest(42, "Default", 16, 2, 1, 8, 3.0, 24, DATA, step=12, epoch=1.5, rows=64, digest="x")

LAYOUTS: dict[str, dict[str, Any]] = {
    "1 x 16": {"processes": 1, "batches_per_epoch": 9},
    "1 x 8, twice": {"processes": 1, "batch_size": 8, "accumulation": 2, "batches_per_epoch": 17},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_rows_in_each_optimizer_step_are_a_continuation(layout: str) -> None:
    """On however many processes, in however many batches, if the place is the same."""
    now = replace(BEFORE, **LAYOUTS[layout])
    assert changes(BEFORE, now) == changes(now, BEFORE) == changes(BEFORE, BEFORE) == []


def test_the_end_of_an_epoch_is_the_beginning_of_the_next() -> None:
    """Nothing is taken of it."""
    before = replace(BEFORE, step=16, epoch=2.0, rows=0, digest=None)
    assert changes(before, replace(before, rows=0)) == []
    assert changes(before, replace(before, epoch=1.5, rows=64))[0].startswith("place: after 0 rows of epoch 2, now")


OTHER = "the rest of epoch 1 is drawn from another order, where some rows come twice and others not at all"
REPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 1, "digest": "y"}, f"seed: 42, now 1: {OTHER}"),
    "seed of no account": ({"seed": 1}, "seed: 42, now 1: the 64 rows taken of epoch 1 are the same in both orders"),
    "sampler": ({"batch_sampler": "Own", "digest": None}, f"batch_sampler: Default, now Own: {OTHER}"),
    "accumulation": (
        {"accumulation": 2},
        "rows in an optimizer step: 16, now 32 (2 batches of 16): an epoch has 4 steps, not 8",
    ),
    "steps": ({"batches_per_epoch": 5, "digest": "y"}, f"steps in an epoch: 8, now 5: {OTHER}"),
    "rows": (
        {"datasets": (DatasetInfo("the dataset", 131, "hash"),), "digest": "y"},
        f"rows of the dataset: 130, now 131: {OTHER}",
    ),
    "values": (
        {"datasets": (DatasetInfo("the dataset", 130, "other"),)},
        "values of the dataset: hash hash, now other: the rows of these numbers hold other values, or are other rows",
    ),
    "names": ({"datasets": (), "digest": None}, f"datasets: the dataset, now a stream: {OTHER}"),
    "order": (
        {"digest": "y"},
        "order: the first 64 rows of epoch 1 are other ones now, though data, seed and sampler are the same (the "
        "epoch does not reach the sampler, or it draws by something else): of the rest, some rows come twice and "
        "others not at all",
    ),
    "skipped": (
        {"epoch": 1.75, "rows": 96},
        "place: after 64 rows of epoch 1, now after 96 rows of epoch 1: the rows between are left out",
    ),
    "back": (
        {"epoch": 0.5},
        "place: after 64 rows of epoch 1, now after 64 rows of epoch 0: the rows between come twice",
    ),
    "epochs": (
        {"num_train_epochs": 1.0, "max_steps": 8},
        "num_train_epochs: 3, now 1: no step is left to train, since 12 of 8 are done",
    ),
    "steps in all": ({"max_steps": 12}, "max_steps: 24, now 12: no step is left to train, since 12 of 12 are done"),
}


@pytest.mark.parametrize("change", REPORTED)
def test_each_change_is_one_line(change: str) -> None:
    """The old value, the new one, and what follows."""
    fields, line = REPORTED[change]
    assert changes(BEFORE, replace(BEFORE, **fields))[0] == line
    assert len(changes(BEFORE, replace(BEFORE, **fields))) == 1


def test_a_manifest_survives_json() -> None:
    """Whatever is not known is None."""
    for manifest in (BEFORE, replace(BEFORE, digest=None, datasets=(), epochs=("", "z"))):
        assert OrderManifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


WHOLE = BEFORE.to_dict()
DAMAGES: dict[str, Any] = {
    "no dict": [1],
    "true for a number": {**WHOLE, "step": True},
    "a number for a hash": {**WHOLE, "datasets": [{"name": "train", "rows": 130, "hash": 7}]},
    "a number for a digest": {**WHOLE, "epochs": [7]},
    "a dataset without rows": {**WHOLE, "datasets": [{"name": "train", "hash": None}]},
    "a field that is missing": {name: value for name, value in WHOLE.items() if name != "seed"},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_few_words(damage: str) -> None:
    """Whatever there is in its place, it is this error and no other."""
    with pytest.raises(DamagedManifest) as error:
        OrderManifest.from_dict(DAMAGES[damage])
    assert len(str(error.value)) < 100
