"""Run `train.py` with a trainer that writes down which rows each rank saw at each step.

The row number rides along in the `label` column, which the collator passes on as a tensor, the no-duplicates sampler
leaves out of its comparison, and `MultipleNegativesRankingLoss` does not read. Model, loss, sampler, loaders and order
are those of `train.py`.

One file per rank, a JSON object per line: first what was running, then a line per step and one per evaluation.
"""

from __future__ import annotations

import json
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import train
from datasets import Dataset

import sentence_transformers
from sentence_transformers import SentenceTransformerTrainer


class RecordingTrainer(SentenceTransformerTrainer):
    """Trains as its base class does; `write_to` names the folder that the record goes to."""

    def __init__(self, *args: object, train_dataset: Dataset, **kwargs: object) -> None:
        numbered = train_dataset.add_column("label", list(range(len(train_dataset))))
        super().__init__(*args, train_dataset=numbered, **kwargs)

    def write_to(self, folder: Path) -> RecordingTrainer:
        folder.mkdir(parents=True, exist_ok=True)
        self.record_path = folder / f"rank{self.args.process_index}.jsonl"
        package = str(Path(sentence_transformers.__file__).resolve().parent)
        self.write(package=package, version=version("sentence-transformers"))
        return self

    def write(self, **values: object) -> None:
        """Append one line; the file is closed after each, so a killed process leaves whole lines behind."""
        with self.record_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: object) -> torch.Tensor:
        self.write(step=self.state.global_step, max_steps=self.state.max_steps, rows=inputs["label"].tolist())
        return super().training_step(model, inputs, *args)

    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        metrics = super().evaluate(*args, **kwargs)
        self.write(metrics=metrics)
        return metrics


class DryTrainer(RecordingTrainer):
    """The same sampler and loaders through the trainer's own loop; a step costs nothing, since no model runs."""

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: object) -> torch.Tensor:
        self.write(step=self.state.global_step, max_steps=self.state.max_steps, rows=inputs["label"].tolist())
        return torch.zeros((), device=self.args.device)


def dry_pass(options: Namespace) -> None:
    """Record a whole run, then one that resumes from its checkpoint after `--save-steps` steps."""
    whole = train.build_trainer(options, DryTrainer).write_to(options.record / "whole")
    whole.train()
    resumed = train.build_trainer(options, DryTrainer).write_to(options.record / "resumed")
    resumed.train(resume_from_checkpoint=str(options.output / f"checkpoint-{options.save_steps}"))
    accelerator = resumed.accelerator
    del whole, resumed
    train.leave(accelerator)


def main() -> None:
    parser = train.build_parser()
    parser.add_argument("--record", type=Path, required=True, help="folder for the record")
    parser.add_argument("--dry", action="store_true", help="no model runs: record a whole run and a resumed one")
    options = parser.parse_args()
    if options.dry:
        dry_pass(options)
    else:
        train.run(train.build_trainer(options, RecordingTrainer).write_to(options.record), options.resume)


if __name__ == "__main__":
    main()
