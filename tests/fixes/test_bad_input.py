"""Data and settings that cannot be trained on: one clear error, on every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selection import few_of

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, train


def prompts_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """A cross-encoder whose pairs have a column called `prompt`."""
    dataset = dataset.remove_columns("label").add_column("label", [1.0] * len(dataset))
    return runs.cross_encoder_trainer(run, arguments, dataset.rename_columns({"anchor": "prompt"}))


def internal_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """A column that upstream reserves."""
    return runs.sentence_transformer_trainer(run, arguments, dataset.rename_column("anchor", "return_loss"))


def refusal(run: Run) -> str:
    """What the user reads; nothing if the run trains."""
    try:
        train(run)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


SPLIT = ("ValueError", "split_batches", "round multiple of the number of processes (2)")
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a batch that cannot be split": ({"batch_size": 7, "accelerator": {"split_batches": True}}, SPLIT),
    "a batch of one that cannot be split": ({"batch_size": 1, "accelerator": {"split_batches": True}}, SPLIT),
    "too few rows for a step": (
        {"rows": (10,)},
        (
            "ValueError",
            "no step",
            "10 rows are too few for a batch of 8",
            "2 processes",
            "per_device_train_batch_size",
        ),
    ),
    "a dataset too small for a step of all": (
        {"rows": (3, 96), "multi": "round_robin"},
        ("ValueError", "no step", "3 and 96 rows are too few for a batch of 8", "per_device_train_batch_size"),
    ),
    "a prompt to be ranked by a cross-encoder": (
        {"trainer": prompts_trainer, "gradients": True},
        ("ValueError", "column 'prompt'", "rename_column('prompt'"),
    ),
    "a column for internal use": ({"trainer": internal_trainer}, ("ValueError", "return_loss", "reserved")),
}
AS_RELEASED = {"a batch that cannot be split", "a batch of one that cannot be split", "a column for internal use"}
FEW = ("too few rows for a step", "a prompt to be ranked by a cross-encoder")


@pytest.mark.parametrize("case", few_of(CASES, FEW, CASES.keys() - AS_RELEASED))
def test_what_cannot_be_loaded_is_named_on_every_rank(case: str, tmp_path: Path, model: str) -> None:
    """Each of two processes stops with an error that names the setting or the column, and the way out."""
    changes, said = CASES[case]
    run = Run(str(tmp_path), model, **{"rows": (48,), "epochs": 1, "sampler": "batch_sampler", **changes})
    messages = run_ranks(2, refusal, run)
    assert all(part in message for message in messages for part in said), messages
