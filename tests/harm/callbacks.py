"""Cases: callbacks and ``log`` overrides."""

from __future__ import annotations

import json
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from sentence_transformers import SentenceTransformerTrainer
from tests.harm import objects
from tests.harm.bench import Bench, pairs
from tests.harm.table import case


class Floats(TrainerCallback):
    """Makes a number of each value."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Field case 5."""
        self.seen = {name: (float(value), round(value, 3)) for name, value in logs.items()}
        json.dumps(logs)


class MovesPending(TrainerCallback):
    """Puts what it has computed into the next record, whichever that is."""

    def __init__(self) -> None:
        self.pending: dict[str, float] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compute something."""
        self.pending = {"pending": state.global_step / 2}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Field case 13."""
        logs.update(self.pending)
        self.pending = {}


class Saves(TrainerCallback):
    """Saves a checkpoint after so many events of a kind."""

    def __init__(self, event: str, count: int) -> None:
        self.left = count
        setattr(self, event, self._count)

    def _count(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.left -= 1
        control.should_save |= self.left == 0
        return control


class EndsEpochs(TrainerCallback):
    """Ends each epoch after two steps."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Field case 23."""
        control.should_epoch_stop = state.global_step % 2 == 0


@case(1, 2)
def callback_makes_floats(bench: Bench) -> None:
    """Field case 5: of each value that is logged."""
    bench.train(batch_sampler="no_duplicates", more={"callbacks": [Floats()]})


@case()
def callback_moves_pending_metrics(bench: Bench) -> None:
    """Field case 13: into the record that comes next."""
    bench.train(batch_sampler="no_duplicates", more={"callbacks": [MovesPending()]})


@case(1, 2)
def log_makes_floats(bench: Bench) -> None:
    """Field case 5: in an override of ``log``."""

    class Own(SentenceTransformerTrainer):
        def log(self, logs: Any, start_time: Any = None) -> None:
            super().log({name: round(float(value), 3) for name, value in logs.items()}, start_time)

    bench.train(cls=Own, batch_sampler="no_duplicates")


@case(1, 2)
def log_expects_the_loss(bench: Bench) -> None:
    """Field case 13: in each record but the last."""

    class Own(SentenceTransformerTrainer):
        def log(self, logs: Any, *args: Any, **kwargs: Any) -> None:
            assert "loss" in logs or "train_loss" in logs
            super().log(logs, *args, **kwargs)

    bench.train(cls=Own)


@case(1, 2)
def callback_takes_the_loader(bench: Bench) -> None:
    """And looks how long it is, and what its batch sampler is."""

    class Looks(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kw: Any) -> None:
            bench.note([len(train_dataloader), type(train_dataloader).__name__])
            bench.note(type(train_dataloader.batch_sampler).__name__)

    bench.train(batch_sampler=objects.Shuffled, more={"callbacks": [Looks]})


@case(1, 2)
def callback_sets_the_epoch_itself(bench: Bench) -> None:
    """The workaround that public threads recommend."""

    class Sets(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kw: Any) -> None:
            sampler = train_dataloader.batch_sampler
            while sampler is not None:
                if hasattr(sampler, "set_epoch"):
                    sampler.set_epoch(int(state.epoch))
                sampler = getattr(sampler, "batch_sampler", None)

    bench.train(batch_sampler="no_duplicates", more={"callbacks": [Sets()]})


@case()
def callback_saves_in_mid_epoch(bench: Bench) -> None:
    """Field case 14: at the end of a step; resumed."""

    def make() -> Any:
        return bench.trainer(
            batch_sampler="no_duplicates", save_strategy="epoch", more={"callbacks": [Saves("on_step_end", 8)]}
        )

    make().train()
    make().train(resume_from_checkpoint=str(bench.output / "checkpoint-8"))


@case()
def callback_saves_between_accumulated_batches(bench: Bench) -> None:
    """Field case 14: at the end of a part of a step, which is saved at the end of the step."""
    callbacks = [Saves("on_substep_end", 3)]
    bench.train(
        batch_sampler="no_duplicates", gradient_accumulation_steps=2, save_strategy="no", more={"callbacks": callbacks}
    )


@case()
def callback_saves_before_the_optimizer(bench: Bench) -> None:
    """Field case 14: ``on_pre_optimizer_step``."""
    callbacks = [Saves("on_pre_optimizer_step", 3)]
    bench.train(batch_sampler="no_duplicates", more={"callbacks": callbacks})


@case()
def callback_ends_epochs_early(bench: Bench) -> None:
    """Field case 23: not resumed."""
    bench.train(batch_sampler=objects.Shuffled, more={"callbacks": [EndsEpochs()]}, num_train_epochs=3)


@case()
def callback_stops_early(bench: Bench) -> None:
    """The library's, with the best model loaded at the end."""
    bench.train(
        batch_sampler="no_duplicates",
        more={"eval_dataset": pairs(8, 100), "callbacks": [EarlyStoppingCallback(1)]},
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        num_train_epochs=3,
    )


@case()
def callback_stops_training(bench: Bench) -> None:
    """In the middle of an epoch."""

    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 4

    bench.train(batch_sampler="no_duplicates", more={"callbacks": [Stops()]})
