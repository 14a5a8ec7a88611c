"""What the callback logs and says, on real trainers with 1 and 2 processes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from order_runs import EPOCHS, LAUNCHES, LOGGING, ROWS, attempt, run_of, stopping
from selection import few_of
from sentence_transformers.base.trainer import BaseTrainer
from torch.utils.data import BatchSampler
from transformers import TrainerCallback

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, continued, train
from sentence_transformers.order import OrderCallback


def alone(run: Run, *callbacks: Any, **options: Any) -> Any:
    """In one process of its own."""
    (outcome,) = run_ranks(1, partial(attempt, **options), run, *callbacks)
    return outcome


# --- what is logged


@pytest.mark.parametrize("launch", few_of(LAUNCHES, ["1 x 16", "2 x 8"]))
def test_every_launch_mode_logs_the_fingerprints_of_the_plan(launch: str, whole: Any) -> None:
    """For one global batch, each epoch has the same fingerprint in each mode and on each rank, and one of its own."""
    assert whole(launch) == whole("1 x 16")
    assert len(set(whole(launch))) == EPOCHS


def test_a_fingerprint_is_a_whole_number_that_every_tracker_keeps(whole: Any) -> None:
    """As a float of 32 bits (TensorBoard), rounded, by Python or NumPy."""
    for value in whole("1 x 16"):
        assert isinstance(value, int) and 0 <= value < 2**24
        assert float(np.float32(value)) == value == round(float(value), 3) == np.round(np.float64(value), 3)


def test_the_rows_are_those_without_the_callback(tmp_path: Path, model: str) -> None:
    """Whatever is put in the sampler's place, also one that draws from a generator of its own."""
    for sampler in ("no_duplicates", DrawsOn):
        run = run_of(tmp_path, model, sampler=sampler)
        assert run_ranks(1, train, run)[0] == alone(run).steps


class DrawsOn(BatchSampler):
    """Draws each pass from where the one before ended; a pass more would change all later ones."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)
        self.rng = np.random.default_rng(0)

    def __iter__(self) -> Any:
        rows = self.rng.permutation(len(self.sampler)).tolist()
        return iter(BatchSampler(rows, self.batch_size, self.drop_last))


class RoundsAll(TrainerCallback):
    """Makes every logged value a float, and rounds it."""

    seen: list[dict[str, float]] = []  # noqa: RUF012

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.seen.append({name: round(float(value), 3) for name, value in logs.items()})


def expects_a_loss(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """A trainer whose ``log`` takes a loss from each record of its training loop."""
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    log = trainer.log

    def checked(logs: dict[str, float], *args: Any) -> None:
        assert "loss" in logs or "train_loss" in logs
        log(logs, *args)

    trainer.log = checked
    return trainer


def fingerprints_among_callbacks(run: Run) -> tuple[Any, list[float]]:
    """The outcome, and what a callback saw."""
    outcome = attempt(run, RoundsAll)
    return outcome, [logs["order_fingerprint"] for logs in RoundsAll.seen if "order_fingerprint" in logs]


def test_other_callbacks_get_a_record_of_its_own(tmp_path: Path, model: str) -> None:
    """Those before it too, such as trackers; ``Trainer.log`` is not called for it."""
    run = run_of(tmp_path, model, trainer=expects_a_loss)
    ((outcome, seen),) = run_ranks(1, fingerprints_among_callbacks, run)
    assert outcome.quiet and seen == outcome.fingerprints and len(seen) == EPOCHS


def test_the_console_shows_it_in_hexadecimal(tmp_path: Path, model: str) -> None:
    """Once an epoch, on the main process."""
    first, second = run_ranks(2, attempt, run_of(tmp_path, model))
    shown = [line.split() for line in first.printed.splitlines() if line.startswith("epoch ")]
    assert [int(line[3], 16) for line in shown] == first.fingerprints == second.fingerprints
    assert second.printed == ""


def stream_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    return runs.sentence_transformer_trainer(run, {**arguments, "max_steps": 9}, dataset.to_iterable_dataset())


def test_a_stream_trains_and_has_no_fingerprint(tmp_path: Path, model: str) -> None:
    """One message says why."""
    outcome = alone(run_of(tmp_path, model, trainer=stream_trainer))
    assert (outcome.fingerprints, outcome.error, len(outcome.steps)) == ([], "", 9)
    assert len(outcome.messages) == 1 and "its rows are streamed" in outcome.messages[0]


class Sequential(BatchSampler):
    """Yields the rows as they are stored."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Has one, and does not need it."""


class Forgets(runs.WrittenByAUser):
    """Is told the epoch, and draws the same each time."""

    def set_epoch(self, epoch: int) -> None:
        """Forget it."""


def test_an_order_that_comes_again_is_told_once_but_of_samplers_that_shuffle(tmp_path: Path, model: str) -> None:
    """A sequential sampler is as it should be; nothing stops for either."""
    run = run_of(tmp_path, model, sampler=Sequential)
    assert alone(run, on_change="stop").quiet
    outcome = alone(replace(run, sampler=Forgets), on_change="stop")
    assert outcome.error == "" and len(outcome.messages) == 1
    assert "Epoch 1 has the same order as epoch 0" in outcome.messages[0]


# --- bad input


@pytest.mark.parametrize(
    "options", [{"on_change": "strict"}, {"hash_rows": 1}, {"hash_rows": True}, {"hash_rows": "all"}]
)
def test_an_option_that_does_not_exist_is_refused(options: dict[str, Any]) -> None:
    """With its name and its value."""
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{name} must be .* got {value!r}\."):
        OrderCallback(**options)


def test_given_twice_it_says_so_and_logs_once(tmp_path: Path, model: str) -> None:
    """The checkpoint's manifest is there, and a resume from it is quiet."""
    run = run_of(tmp_path, model, batch_size=16, stop_after=8)
    outcome = alone(run, OrderCallback)
    assert outcome.error == "" and len(outcome.fingerprints) == 1
    assert [message for message in outcome.messages if "given twice" in message] == outcome.messages != []
    assert alone(continued(run)).quiet


# --- a resume


@pytest.mark.parametrize("launch", few_of(["1 x 16", "2 x 8", "accumulation"], ["2 x 8"]))
def test_a_continuation_is_silent_and_has_the_fingerprints_of_the_whole_run(
    launch: str, stopped: Any, whole: Any
) -> None:
    """With "stop", too; the resumed epoch has the fingerprint of the uninterrupted one."""
    for outcome in run_ranks(LAUNCHES[launch][0], stopping, stopped(launch)):
        assert (outcome.fingerprints, outcome.messages, outcome.error) == (whole(launch), [], "")


def test_another_number_of_processes_with_the_same_plan_passes(stopped: Any, whole: Any) -> None:
    """The same rows in each step, drawn from the same plan."""
    run = replace(stopped("2 x 8"), batch_size=16)
    (outcome,) = run_ranks(1, stopping, run)
    assert (outcome.fingerprints, outcome.messages, outcome.error) == (whole("1 x 16"), [], "")


def test_an_epoch_that_is_lost_in_a_resume_is_told(tmp_path: Path, model: str) -> None:
    """On the release, the resumed epoch of two processes comes in epoch 0's order; in the fork, as it should."""
    run = run_of(tmp_path, model, sampler="no_duplicates", stop_after=8)
    run_ranks(2, attempt, run)
    first, second = run_ranks(2, attempt, continued(run))
    is_fork = "_inner_training_loop" in vars(BaseTrainer)
    assert (first.error, second.error, second.messages) == ("", "", [])
    lost, repeated = "order: the first 32 rows of epoch 1 are other ones", "Epoch 1 has the same order as epoch 0"
    assert [lost in one for one in first.messages] == ([] if is_fork else [True, False])
    assert is_fork or repeated in first.messages[1]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "rows": ({"rows": (ROWS + 16,)}, "rows of the dataset: 96, now 112: "),
    "seed": ({"arguments": {**LOGGING, "seed": 43}}, "seed: 42, now 43: the rest of epoch 1 is drawn from another"),
    "batch size": ({"batch_size": 8}, "rows in an optimizer step: 16, now 8: an epoch has 12 steps, not 6"),
    "sampler": (
        {"sampler": "no_duplicates"},
        "batch_sampler: DefaultBatchSampler, now NoDuplicatesBatchSampler: the rest of epoch 1",
    ),
    "epochs": ({"epochs": 1}, "num_train_epochs: 3, now 1: no step is left to train, since 8 of 6 are done"),
}


@pytest.mark.parametrize("change", few_of(CHANGES, ["rows"]))
def test_each_changed_option_is_a_line(change: str, stopped: Any) -> None:
    """With the old value, the new one, and what follows; the run goes on."""
    changes, expected = CHANGES[change]
    outcome = alone(replace(stopped("1 x 16"), **changes))
    (message,) = outcome.messages
    head, *lines, way = message.splitlines()
    assert lines[0].startswith(f"  {expected}") and len(lines) <= 2 and outcome.error == ""
    assert head.endswith("would have:") and "bring back what has changed" in way
    assert bool(outcome.steps) == (change != "epochs")


def test_stop_stops_every_rank(stopped: Any) -> None:
    """After the first step, with the same error on each."""
    run = replace(stopped("2 x 8"), arguments={**LOGGING, "seed": 43})
    first, second = run_ranks(2, stopping, run)
    assert first.error == second.error and first.error.startswith("OrderChanged: ")
    assert "seed: 42, now 43" in first.error


@pytest.mark.parametrize("damage", few_of(["missing", {}, {"seed": "x"}], [{"seed": "x"}]))
def test_a_damaged_manifest_is_one_message(damage: Any, tmp_path: Path, model: str) -> None:
    """Training goes on, also with "stop"."""
    run = run_of(tmp_path, model, stop_after=8)
    assert alone(run).quiet
    (path,) = tmp_path.glob("checkpoint-8/trainer_state.json")
    state = json.loads(path.read_text())
    state["stateful_callbacks"]["OrderCallback"]["attributes"] = {} if damage == "missing" else {"manifest": damage}
    path.write_text(json.dumps(state))
    outcome = alone(continued(run), on_change="stop")
    assert outcome.error == "" and len(outcome.fingerprints) == EPOCHS
    assert ["is damaged (" in message for message in outcome.messages] == [True]


def without_callback(run: Run) -> None:
    train(run)


def test_a_checkpoint_without_manifest_resumes_and_the_next_one_has_it(tmp_path: Path, model: str) -> None:
    """And one with a manifest resumes without the callback."""
    run = run_of(tmp_path, model, stop_after=8)
    run_ranks(1, without_callback, run)
    later = replace(continued(run), stop_after=10)
    assert alone(later).quiet
    stored = json.loads((tmp_path / "checkpoint-10/trainer_state.json").read_text())
    assert stored["stateful_callbacks"]["OrderCallback"]["attributes"]["manifest"]["step"] == 10
    run_ranks(1, without_callback, replace(later, stop_after=12))


class SavesEarly(TrainerCallback):
    """Saves a checkpoint in the middle of an optimizer step, as just-in-time checkpoints do."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            self.trainer._save_checkpoint(self.trainer.model, trial=None)


def saving_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    trainer.add_callback(SavesEarly(trainer))
    return trainer


@pytest.mark.parametrize("accumulation", few_of([1, 4], [4]))
def test_a_checkpoint_saved_within_a_step_is_a_continuation(accumulation: int, tmp_path: Path, model: str) -> None:
    """Its place is the trainer's; nothing is said."""
    arguments = {**LOGGING, "gradient_accumulation_steps": accumulation}
    run = run_of(tmp_path, model, trainer=saving_trainer, arguments=arguments)
    before = alone(run)
    after = alone(replace(run, resume=str(tmp_path / "checkpoint-4")), on_change="stop")
    assert before.quiet and after.quiet
    assert before.fingerprints == after.fingerprints
    assert after.steps == before.steps[4 * accumulation :]


class PassesOnByPosition(runs.SentenceTransformerTrainer):
    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        names = ("batch_size", "args", "resume_from_checkpoint", "trial", "ignore_keys_for_eval")
        return super()._inner_training_loop(*args, *(kwargs.get(name) for name in names[len(args) :]))


def by_position(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    trainer = runs.sentence_transformer_trainer(run, arguments, dataset)
    trainer.__class__ = PassesOnByPosition
    return trainer


def test_a_resume_is_recognised_however_it_is_passed(stopped: Any) -> None:
    """The checkpoint speaks for itself."""
    run = replace(stopped("1 x 16"), trainer=by_position, arguments={**LOGGING, "seed": 43})
    assert "seed: 42, now 43" in alone(run).messages[0]


# --- several processes


def other_data(change: str, run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A trainer that is built on another process from something else than on the main one."""
    rows = list(range(len(dataset)))
    if os.environ.get("RANK") == "1":
        if change == "a row changed":
            last = {**dataset[-1], "anchor": "Atlantis"}
            dataset = Dataset.from_list([*dataset.select(rows[:-1]), last], features=dataset.features)
        elif change == "seed":
            arguments = {**arguments, "seed": 43}
        elif change == "loaded":
            folder = f"{run.folder}/saved"
            dataset.shuffle(seed=1).save_to_disk(folder)
            dataset = load_from_disk(folder)
    elif change == "loaded":
        dataset = dataset.shuffle(seed=1)
    return runs.sentence_transformer_trainer(run, arguments, dataset)


DISAGREE = {"a row changed": "values of the dataset: ", "seed": "seed: 42 on rank 0, 43 on rank 1"}


@pytest.mark.parametrize("change", few_of(DISAGREE, ["a row changed"]))
def test_ranks_that_disagree_are_warned_or_stopped(change: str, tmp_path: Path, model: str) -> None:
    """The main process says who disagrees about what, and training goes on as on the release."""
    said = DISAGREE[change]
    run = run_of(tmp_path, model, trainer=partial(other_data, change), epochs=1)
    first, second = run_ranks(2, attempt, run)
    assert said in first.messages[0] and "do not share one order" in first.messages[0]
    assert (first.error, second.error, second.messages) == ("", "", [])
    for outcome in run_ranks(2, stopping, run):
        assert outcome.error.startswith("OrderChanged: ") and said in outcome.error and not outcome.steps


def test_ranks_with_equal_rows_that_are_stored_differently_agree(tmp_path: Path, model: str) -> None:
    """One shuffled, the other saved and loaded."""
    run = run_of(tmp_path, model, trainer=partial(other_data, "loaded"))
    assert all(outcome.quiet for outcome in run_ranks(2, stopping, run))


class DrawsByTheRank(runs.WrittenByAUser):
    """Disagrees about every epoch, from a batch on."""

    first = 0

    def __iter__(self) -> Any:
        batches = list(super().__iter__())
        if os.environ.get("RANK") == "1":
            batches[self.first :] = reversed(batches[self.first :])
        return iter(batches)


class DrawsTheEndByTheRank(DrawsByTheRank):
    """Disagrees about the last batches."""

    first = 4


@pytest.mark.parametrize(
    ("sampler", "said"), [(DrawsByTheRank, "order up to the first step: "), (DrawsTheEndByTheRank, "order of epoch 0")]
)
def test_ranks_whose_samplers_disagree_are_told(sampler: Any, said: str, tmp_path: Path, model: str) -> None:
    """About the first rows: after the first step. About later ones: at the end of the epoch."""
    first, second = run_ranks(2, attempt, run_of(tmp_path, model, sampler=sampler))
    assert len(first.messages) == 1 and said in first.messages[0]
    assert (first.error, second.error, second.messages) == ("", "", [])


def transformed(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A transform after which other rows hold the same texts on each rank."""
    dataset.set_transform(partial(shortened, 3 if os.environ.get("RANK") == "1" else 100))
    return runs.sentence_transformer_trainer(run, arguments, dataset)


def shortened(length: int, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [one[:length] if isinstance(one, str) else one for one in held] for name, held in rows.items()}


def test_a_transform_with_draws_of_its_own_is_named(tmp_path: Path, model: str) -> None:
    """The data is the same; the order of a sampler that compares values is not."""
    first, second = run_ranks(
        2, attempt, run_of(tmp_path, model, trainer=transformed, sampler="no_duplicates", epochs=1)
    )
    assert (first.error, second.error, second.messages) == ("", "", [])
    assert len(first.messages) == 1 and "The data has a transform, " in first.messages[0]
    assert "shortened" in first.messages[0]
