"""Cases: training loops and trainers that users write by themselves."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from sentence_transformers import SentenceTransformerTrainer
from tests.harm import objects
from tests.harm.bench import EPOCHS, Bench
from tests.harm.table import case


def loop(bench: Bench, trainer: Any, loader: Any, accelerator: Any, first: int = 0) -> None:
    """Train over a loader without ``train()``."""
    optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.01)
    for epoch in range(EPOCHS):
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        batches = accelerator.skip_first_batches(loader, first) if first and not epoch else loader
        for batch in batches:
            bench.saw(batch)
            loss = trainer.compute_loss(trainer.model, batch)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            bench.note(loss.item())


@case(1, 2)
def loop_over_the_trainer_s_loader(bench: Bench) -> None:
    """The trainer builds the loader, and nothing else."""
    trainer = bench.trainer(batch_sampler=objects.Shuffled)
    loop(bench, trainer, trainer.get_train_dataloader(), trainer.accelerator)


@case(1, 2)
def loop_with_an_own_accelerator(bench: Bench) -> None:
    """The loader is not prepared yet."""
    trainer = bench.trainer(batch_sampler="no_duplicates")
    accelerator = Accelerator(cpu=True)
    loader = trainer._build_dataloader(trainer.train_dataset, 4, "train")
    loop(bench, trainer, accelerator.prepare(loader), accelerator)


@case()
def loop_skips_batches(bench: Bench) -> None:
    """As a loop resumes."""
    trainer = bench.trainer(batch_sampler=objects.Shuffled)
    loop(bench, trainer, trainer.get_train_dataloader(), trainer.accelerator, first=2)


@case(1, 2)
def loader_skips_batches_and_keeps_its_settings(bench: Bench) -> None:
    """To try (accelerate 4295): what is known of a loader that a resume makes, by the name of the setting."""
    trainer = bench.trainer(batch_sampler=objects.Shuffled, accelerator_config={"non_blocking": True})
    skipped = trainer.accelerator.skip_first_batches(trainer.get_train_dataloader(), 2)
    names = ("_drop_last", "_non_blocking", "split_batches", "even_batches", "rng_types", "num_workers", "pin_memory")
    bench.note({name: repr(getattr(skipped, name, None)) for name in names})
    loop(bench, trainer, skipped, trainer.accelerator)


class ByPosition(SentenceTransformerTrainer):
    """Passes the arguments of the inner loop on by position."""

    def _inner_training_loop(self, batch_size: Any = None, args: Any = None, *others: Any, **named: Any) -> Any:
        resume = named.pop("resume_from_checkpoint", None)
        return super()._inner_training_loop(batch_size, args, resume, *others, **named)


class ByName(SentenceTransformerTrainer):
    """Passes whatever it gets on."""

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        return super()._inner_training_loop(*args, **kwargs)


class OwnTrain(SentenceTransformerTrainer):
    """Overrides ``train``, with arguments of its own."""

    def train(self, resume_from_checkpoint: Any = None, more: Any = None, **kwargs: Any) -> Any:
        """Call the library's."""
        return super().train(resume_from_checkpoint, **kwargs)


@case(1, 2)
def inner_loop_is_overridden(bench: Bench) -> None:
    """With ``*args`` and ``**kwargs``."""
    bench.train(cls=ByName, batch_sampler=objects.Shuffled)


@case()
def inner_loop_is_overridden_and_resumed(bench: Bench) -> None:
    """Field case 22: the checkpoint goes on by position."""
    bench.resume(3, cls=ByPosition, batch_sampler=objects.Shuffled)


@case()
def train_is_overridden(bench: Bench) -> None:
    """And resumed."""
    bench.resume(3, cls=OwnTrain, batch_sampler=objects.Shuffled)


@case(1, 2)
def steps_and_loss_are_overridden(bench: Bench) -> None:
    """``training_step`` and ``compute_loss`` of a subclass."""

    class Own(SentenceTransformerTrainer):
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return super().training_step(model, inputs, *args, **kwargs)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(model, dict(inputs), *args, **kwargs)

    bench.train(cls=Own, batch_sampler=objects.Shuffled)


@case(1, 2)
def train_is_called_twice(bench: Bench) -> None:
    """On one trainer."""
    trainer = bench.trainer(batch_sampler=objects.Shuffled)
    trainer.train()
    trainer.train()


@case(1, 2)
def train_is_called_twice_with_the_default_sampler(bench: Bench) -> None:
    """On one trainer, with nothing set."""
    trainer = bench.trainer()
    trainer.train()
    trainer.train()


@case(1, 2)
def evaluated_between_two_trains(bench: Bench) -> None:
    """Train, evaluate, train."""
    trainer = bench.trainer(batch_sampler=objects.Shuffled, more={"eval_dataset": objects_eval()})
    trainer.train()
    bench.note(trainer.evaluate()["eval_loss"])
    trainer.train()


def objects_eval() -> Any:
    """Rows to evaluate on."""
    from tests.harm.bench import pairs

    return pairs(8, 100)


@case()
def saved_after_training(bench: Bench) -> None:
    """To try: ``_save_checkpoint`` when ``train()`` has returned, as Unsloth's studio does."""
    trainer = bench.train(batch_sampler=objects.Shuffled)
    trainer._save_checkpoint(trainer.model, trial=None)
    trainer.save_model(str(bench.output / "final"))


@case()
def callback_handler_is_replaced_as_setfit_does(bench: Bench) -> None:
    """To try, a stand-in for SetFit 1.2 (``test_setfit.py`` runs the package where it is installed).

    ``call_event`` is replaced, and callbacks get arguments that lack what the trainer's have.
    """

    class FewArguments:
        def __init__(self, args: Any) -> None:
            names = ("output_dir", "num_train_epochs", "logging_steps", "disable_tqdm", "seed", "max_steps")
            for name in (*names, "logging_strategy", "eval_strategy", "save_strategy", "logging_first_step"):
                setattr(self, name, getattr(args, name))

    def call_event(event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        handler = trainer.callback_handler
        for callback in handler.callbacks:
            if type(callback).__name__ in ("_Watch", "PrinterCallback"):
                settings = {"model": handler.model, "train_dataloader": handler.train_dataloader, **kwargs}
                getattr(callback, event)(FewArguments(args), state, control, **settings)
        return control

    trainer = bench.trainer(batch_sampler=objects.Shuffled, logging_strategy="no")
    trainer.callback_handler.call_event = call_event
    trainer.train()


@case(1, 2)
def stub_trainer_without_init(bench: Bench) -> None:
    """Upstream's tests build one with ``__new__`` and call single methods."""
    trainer = SentenceTransformerTrainer.__new__(SentenceTransformerTrainer)
    trainer.args = bench.arguments(batch_sampler=objects.Shuffled)
    sampler = trainer.get_batch_sampler(range(8), 4, False)
    bench.note(list(sampler))
    bench.note(list(trainer.collect_features({"label": torch.ones(1)})[0]))
