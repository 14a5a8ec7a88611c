"""Cases: what is kept from before, on disk."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch

from sentence_transformers import SentenceTransformerTrainingArguments, __version__
from tests.harm import objects
from tests.harm.bench import Bench
from tests.harm.table import case

ARGUMENTS = "training_args.bin"


def leave_arguments(shared: Path) -> None:
    """Pickle training arguments as a checkpoint holds them; on the release, for the fork to load."""
    args = SentenceTransformerTrainingArguments(str(shared), use_cpu=True, report_to="none", logging_steps=1)
    torch.save(args, shared / "made.bin")
    (shared / "made.bin").rename(shared / ARGUMENTS)


@case()
def arguments_were_pickled_by_the_release(bench: Bench) -> None:
    """Field case 21: ``training_args.bin`` of a checkpoint, loaded."""
    while not (bench.shared / ARGUMENTS).exists():
        time.sleep(0.05)
    bench.arguments()  # a process has its accelerate state before it loads any
    args = torch.load(bench.shared / ARGUMENTS, weights_only=False)
    args.output_dir, args.batch_sampler, args.save_strategy = str(bench.output), "no_duplicates", "no"
    bench.train(args=args)


@case()
def arguments_are_as_released(bench: Bench) -> None:
    """No argument is new, none is gone, and none has another default."""
    bench.note(sorted(field.name for field in dataclasses.fields(SentenceTransformerTrainingArguments)))
    ours = bench.arguments().to_dict()
    bench.note({name: value for name, value in sorted(ours.items()) if name not in ("output_dir", "logging_dir")})
    bench.note(__version__)


@case()
def model_was_saved_and_is_loaded(bench: Bench) -> None:
    """And trained on."""
    trainer = bench.train(batch_sampler=objects.Shuffled)
    trainer.save_model(str(bench.output / "saved"))
    again = type(trainer.model)(str(bench.output / "saved"), device="cpu")
    bench.note(again.encode("a1", convert_to_tensor=True).tolist())
