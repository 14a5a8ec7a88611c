"""Cases: training arguments, kinds of models, evaluation, resumes, searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sentence_transformers import SentenceTransformer
from tests.harm import objects
from tests.harm.bench import Bench, pairs, tokenizer
from tests.harm.table import case

OWN = {"batch_sampler": objects.Shuffled}


class Scores(BaseEvaluator):
    """Counts how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.greater_is_better, self.primary_metric, self.calls = True, "calls", 0

    def __call__(self, model: Any, output_path: Any = None, epoch: int = -1, steps: int = -1) -> dict[str, float]:
        self.calls += 1
        return {"calls": float(self.calls)}


@case(1, 2)
def steps_are_limited(bench: Bench) -> None:
    """``max_steps`` in the second epoch."""
    bench.train(max_steps=8, **OWN)


@case(1, 2)
def gradients_are_accumulated(bench: Bench) -> None:
    """Over two batches."""
    bench.train(gradient_accumulation_steps=2, **OWN)


@case(1, 2)
def last_batch_is_dropped(bench: Bench) -> None:
    """Of rows that do not fill whole batches."""
    bench.train(data=pairs(22), dataloader_drop_last=True, **OWN)


@case(1, 2)
def last_batch_is_kept(bench: Bench) -> None:
    """Of rows that do not fill whole batches."""
    bench.train(data=pairs(22), **OWN)


@case()
def workers_load(bench: Bench) -> None:
    """Two of them."""
    bench.train(dataloader_num_workers=2, **OWN)


@case()
def workers_stay(bench: Bench) -> None:
    """For all epochs."""
    bench.train(dataloader_num_workers=1, dataloader_persistent_workers=True, batch_sampler="no_duplicates")


@case(1, 2)
def evaluated_and_saved(bench: Bench) -> None:
    """Every few steps, with a loss and an evaluator, and the best model at the end."""
    bench.train(
        more={"eval_dataset": pairs(8, 100), "evaluator": Scores()},
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
        load_best_model_at_end=True,
        **OWN,
    )


@case()
def evaluated_at_the_start(bench: Bench) -> None:
    """On two sets, by name."""
    evaluated = {"one": pairs(4, 100), "other": pairs(4, 200)}
    bench.train(more={"eval_dataset": evaluated}, eval_strategy="epoch", eval_on_start=True, **OWN)


@case(1, 2)
def saved_each_epoch(bench: Bench) -> None:
    """The files of checkpoints."""
    bench.train(save_strategy="epoch", **OWN)


@case()
def only_the_model_is_saved(bench: Bench) -> None:
    """Nothing to resume from."""
    bench.train(save_strategy="epoch", save_only_model=True, **OWN)


@case()
def resumed_in_the_first_epoch(bench: Bench) -> None:
    """On one process."""
    bench.resume(3, batch_sampler="no_duplicates")


@case()
def resumed_in_the_second_epoch(bench: Bench) -> None:
    """On one process."""
    bench.resume(8, batch_sampler="no_duplicates")


@case()
def resumed_with_accumulation(bench: Bench) -> None:
    """On one process."""
    bench.resume(4, gradient_accumulation_steps=2, **OWN)


@case(2)
def resumed_in_the_first_epoch_on_two(bench: Bench) -> None:
    """Epoch 0 is right on the release."""
    bench.resume(2, **OWN)


@case()
def resumed_after_the_end(bench: Bench) -> None:
    """Nothing is left to train."""
    bench.resume(12, **OWN)


@case()
def resumed_with_data_skip_ignored(bench: Bench) -> None:
    """The epoch begins anew."""
    bench.resume(3, ignore_data_skip=True, **OWN)


@case()
def resumed_by_true(bench: Bench) -> None:
    """From the last checkpoint in the folder, by the trainer that wrote it."""
    trainer = bench.trainer(save_strategy="steps", save_steps=5, **OWN)
    trainer.train()
    trainer.train(resume_from_checkpoint=True)


@case()
def resumed_with_more_epochs(bench: Bench) -> None:
    """Two epochs, then a third."""
    bench.train(save_strategy="epoch", **OWN)
    trainer = bench.trainer(num_train_epochs=3, **OWN)
    trainer.train(resume_from_checkpoint=str(bench.output / "checkpoint-12"))


@case()
def saved_by_signal(bench: Bench) -> None:
    """``enable_jit_checkpoint``, where no signal comes."""
    bench.train(enable_jit_checkpoint=True, **OWN)


@case(2)
def batches_are_split(bench: Bench) -> None:
    """``split_batches``."""
    bench.train(accelerator_config={"split_batches": True}, **OWN)


@case(2)
def batches_of_one_label_are_split(bench: Bench) -> None:
    """To try (3668, 4013): each batch has one label."""

    class OneLabel(objects.Shuffled):
        def order(self) -> list[int]:
            return [4 * group + row for group in range(6) for row in range(4)]

    bench.train(accelerator_config={"split_batches": True}, batch_sampler=OneLabel)


@case(1, 2)
def sampler_is_not_seedable(bench: Bench) -> None:
    """accelerate's other way to shuffle."""
    bench.train(accelerator_config={"use_seedable_sampler": False}, **OWN)


@case()
def loader_is_stateful(bench: Bench) -> None:
    """torchdata's."""
    trainer = bench.trainer(batch_sampler="no_duplicates")
    trainer.accelerator.dataloader_config.use_stateful_dataloader = True
    trainer.train()


@case()
def batch_size_is_found(bench: Bench) -> None:
    """``auto_find_batch_size``, where the first one fits."""
    bench.train(auto_find_batch_size=True, **OWN)


@case(1, 2)
def batch_size_is_changed_when_the_trainer_is_built(bench: Bench) -> None:
    """As SetFit 1.2 does: its arguments come after the trainer."""
    trainer = bench.trainer(**OWN)
    trainer.args.per_device_train_batch_size = 2
    trainer.train()


@case()
def seeds_are_set(bench: Bench) -> None:
    """``seed`` alone, and ``full_determinism`` is not asked for."""
    bench.train(seed=7, batch_sampler="no_duplicates")


@case()
def loss_has_components(bench: Bench) -> None:
    """A loss that returns a dict is logged by its parts."""

    class Parts(MultipleNegativesRankingLoss):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().forward(*args, **kwargs)
            return {"first": loss / 2, "second": loss / 2}

    model = bench.model()
    bench.train(more={"model": model, "loss": Parts(model)}, **OWN)


@case(1, 2)
def search_by_hand(bench: Bench) -> None:
    """One trainer with ``model_init``, trained anew with other arguments."""
    more = {"model": None, "model_init": bench.model, "loss": MultipleNegativesRankingLoss}
    trainer = bench.trainer(more=more, batch_sampler="no_duplicates")
    for epochs, rate in ((1, 1e-3), (2, 1e-4)):
        trainer.args.num_train_epochs, trainer.args.learning_rate = epochs, rate
        trainer.train()


@case(needs="optuna")
def search_by_optuna(bench: Bench) -> None:
    """A hyperparameter search of two trials."""
    import optuna

    trainer = bench.trainer(
        more={
            "model": None,
            "model_init": bench.model,
            "loss": MultipleNegativesRankingLoss,
            "eval_dataset": pairs(8),
        },
        eval_strategy="epoch",
        **OWN,
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"num_train_epochs": trial.suggest_int("num_train_epochs", 1, 2)},
        n_trials=2,
        backend="optuna",
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    bench.note(best.run_id)


@case(1, 2)
def model_is_a_transformer(bench: Bench) -> None:
    """With texts of several lengths."""
    model = small_transformer(bench)
    bench.train(more={"model": model, "loss": MultipleNegativesRankingLoss(model)}, batch_sampler="no_duplicates")


@case()
def tokenizer_has_no_padding(bench: Bench) -> None:
    """Field case 8: the tokenizer's own error is what is seen."""
    model = small_transformer(bench)
    model.tokenizer.pad_token = None
    bench.train(more={"model": model, "loss": MultipleNegativesRankingLoss(model)})


def small_transformer(bench: Bench) -> SentenceTransformer:
    """One narrow layer, with a tokenizer that knows the words."""
    return SentenceTransformer(str(bench.stored("transformer", write_transformer)), device="cpu")


def write_transformer(folder: Path) -> None:
    """Its weights and its tokenizer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer().get_vocab_size(),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    tokens = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), pad_token="[PAD]", unk_token="[UNK]")
    tokens.save_pretrained(folder)


@case(1, 2)
def model_is_a_cross_encoder(bench: Bench) -> None:
    """On two processes, with the flag that makes it train on the release."""
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments

    folder = bench.stored("transformer", write_transformer)
    torch.manual_seed(3)
    model = CrossEncoder(str(folder), num_labels=1, device="cpu")
    bench.train(
        cls=CrossEncoderTrainer,
        args=bench.arguments(CrossEncoderTrainingArguments, ddp_find_unused_parameters=False, **OWN),
        more={"model": model, "loss": BinaryCrossEntropyLoss(model)},
    )


@case()
def model_is_sparse(bench: Bench) -> None:
    """A weight for each token."""
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments

    tokens = small_transformer(bench).tokenizer
    model = SparseEncoder(modules=[SparseStaticEmbedding(tokens)], device="cpu")
    loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=1e-3)
    bench.train(
        cls=SparseEncoderTrainer,
        args=bench.arguments(SparseEncoderTrainingArguments, **OWN),
        more={"model": model, "loss": loss},
    )


@case()
def model_has_many_vectors(bench: Bench) -> None:
    """A late-interaction model."""
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    from sentence_transformers import (
        MultiVectorEncoder,
        MultiVectorEncoderTrainer,
        MultiVectorEncoderTrainingArguments,
    )

    folder = bench.stored("transformer", write_transformer)
    model = MultiVectorEncoder(str(folder), device="cpu")
    bench.train(
        cls=MultiVectorEncoderTrainer,
        args=bench.arguments(MultiVectorEncoderTrainingArguments, **OWN),
        more={"model": model, "loss": MultiVectorMultipleNegativesRankingLoss(model)},
    )


@case(1, 2)
def loss_is_cached(bench: Bench) -> None:
    """To try (2816): lengths that fill no whole batch, ``drop_last``."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    model = small_transformer(bench)
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    bench.train(data=pairs(23), more={"model": model, "loss": loss}, dataloader_drop_last=True, **OWN)
