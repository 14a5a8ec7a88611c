"""Data and settings that cannot be trained on: one clear error, on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, train
from conformance.trainers import as_collated_trainer

DEFECT = pytest.mark.defect
ROWS = 48


@dataclass(frozen=True)
class WithColumns:
    """A trainer on the usual data with other columns: a value for each row, another name, a value that is missing."""

    values: tuple[tuple[str, Any], ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, int] | None = None  # a column, and a row in which it has none
    build: Any = runs.sentence_transformer_trainer

    def __call__(self, run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
        for name, value in self.values:
            dataset = dataset.remove_columns(name) if name in dataset.column_names else dataset
            dataset = dataset.add_column(name, [value] * len(dataset))
        if self.missing:
            column, row = self.missing
            values = [None if index == row else value for index, value in enumerate(dataset[column])]
            dataset = dataset.remove_columns(column).add_column(column, values)
        return self.build(run, arguments, dataset.rename_columns(dict(self.names)))


def stream_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Streams the rows, which are dispatched by default."""
    return as_collated_trainer(run, {**arguments, "max_steps": 4}, dataset.to_iterable_dataset())


def refusal(run: Run) -> str:
    """What the user reads; nothing if the run trains."""
    try:
        train(run)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


SPLIT = ("ValueError", "split_batches", "per_device_train_batch_size", "multiple of 2")
CROSS_ENCODER = WithColumns(
    (("label", 1.0),), (("anchor", "prompt"), ("positive", "response")), build=runs.cross_encoder_trainer
)
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a batch that cannot be split": ({"batch_size": 7, "accelerator": {"split_batches": True}}, SPLIT),
    "a batch of one that cannot be split": ({"batch_size": 1, "accelerator": {"split_batches": True}}, SPLIT),
    "a batch that cannot be dispatched in parts": (
        {"batch_size": 1, "accelerator": {"split_batches": True, "dispatch_batches": True}},
        SPLIT,
    ),
    "a setting that there is not": (
        {"accelerator": {"split_batch": True}},
        ("ValueError", "accelerator_config has no setting 'split_batch'", "split_batches"),
    ),
    "a setting that is elsewhere": (
        {"accelerator": {"use_stateful_dataloader": True}},
        ("ValueError", "'use_stateful_dataloader'", "trainer.accelerator.dataloader_config"),
    ),
    "too few rows for a step": (
        {"rows": (10,)},
        ("ValueError", "10 rows", "one batch of 8 for each of 2 processes", "per_device_train_batch_size"),
    ),
    "persistent workers, but none": (
        {"arguments": {"dataloader_persistent_workers": True}},
        ("ValueError", "dataloader_persistent_workers=True", "dataloader_num_workers is 0"),
    ),
    "a label that is text": (
        {"trainer": WithColumns((("label", "good"),))},
        ("ValueError", "'label'", "'good'", "remove_columns('label')"),
    ),
    "a label that is missing": (
        {"trainer": WithColumns((("label", None),))},
        ("ValueError", "'label'", "None", "remove_columns('label')"),
    ),
    "one label that is missing": (
        {"trainer": WithColumns((("label", 1.0),), missing=("label", 5))},
        ("ValueError", "'label'", "None", "remove_columns('label')"),
    ),
    "one label of many that is missing, dispatched": (
        {
            "rows": (160,),
            "trainer": WithColumns((("label", 1.0),), missing=("label", 120)),
            "accelerator": {"dispatch_batches": True},
        },
        ("ValueError", "'label'", "None", "remove_columns('label')"),
    ),
    "one text that is missing": (
        {"trainer": WithColumns(missing=("anchor", 5))},
        ("ValueError", "'anchor'", "None", "remove_columns('anchor')"),
    ),
    "a stream of too few rows for a step": (
        {"rows": (10,), "trainer": stream_trainer},
        ("ValueError", "no batch to dispatch", "per_device_train_batch_size"),
    ),
    "a label that is text, dispatched": (
        {"trainer": WithColumns((("label", "good"),)), "accelerator": {"dispatch_batches": True}},
        ("ValueError", "'label'", "'good'", "remove_columns('label')"),
    ),
    "a second column of labels": (
        {"trainer": WithColumns((("score", 0.5),)), "sampler": "batch_sampler"},
        ("ValueError", "'score'", "0.5", "remove_columns('score')"),
    ),
    "a prompt to be ranked by a cross-encoder": (
        {"trainer": CROSS_ENCODER, "sampler": "batch_sampler"},
        ("ValueError", "called 'prompt'", "rename_column('prompt'"),
    ),
    "a column for internal use": (
        {"trainer": WithColumns((("return_loss", "x"),))},
        ("ValueError", "return_loss", "reserved"),
    ),
}
AS_RELEASED = ("a column for internal use",)


@pytest.mark.parametrize("case", [pytest.param(name, marks=() if name in AS_RELEASED else DEFECT) for name in CASES])
def test_what_cannot_be_loaded_is_refused_by_name_on_every_rank(case: str, tmp_path: Path, model: str) -> None:
    """Each of two processes stops with an error that names the setting or the column, and the way out."""
    changes, said = CASES[case]
    run = Run(str(tmp_path), model, **{"rows": (ROWS,), "epochs": 1, "sampler": "batch_sampler", **changes})
    messages = run_ranks(2, refusal, run)
    assert all(part in message for message in messages for part in said), messages
