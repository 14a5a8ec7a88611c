"""Every process trains the same model and the same loss, on real ranks."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import weights_runs
from selection import few_of
from torch import nn

import sentence_transformers
from conformance.launch import RankFailed, run_ranks
from conformance.scenarios import BY_NAME
from conformance.weights import VARIANTS, judge_weights, lacks

OWN = {
    name: getattr(weights_runs, name)
    for name in ("softmax", "projection", "decoder", "tied_decoder", "tension", "nested", "several", "OneRank")
}
RELEASED = {  # the losses of the release that have parameters of their own, and where these come from
    "SoftmaxLoss",  # a classifier
    "EmbedDistillLoss",  # a projection
    "MSELoss",  # the same
    "SparseMSELoss",  # inherits the code of the projection, and takes none
    "DenoisingAutoEncoderLoss",  # a decoder
    "ContrastiveTensionLoss",  # a second model
    "ContrastiveTensionLossInBatchNegatives",  # a second model and a temperature
}
MAKES_PARAMETERS = ("nn.Parameter(", "nn.Linear(", "nn.Embedding(", "AutoModel", "copy.deepcopy(model)")


def test_losses_with_parameters_are_those_that_are_trained_here() -> None:
    """Found in the code of every kind of model, so that a new one is missed by no one."""
    found = set()
    for package in pkgutil.iter_modules(sentence_transformers.__path__, "sentence_transformers."):
        if not package.ispkg or not (Path(*sentence_transformers.__path__) / package.name[22:] / "losses").is_dir():
            continue
        module = importlib.import_module(f"{package.name}.losses")
        for name, loss in inspect.getmembers(module, inspect.isclass):
            own = issubclass(loss, nn.Module) and loss.__module__.startswith("sentence_transformers")
            sources = [inspect.getsource(base) for base in loss.__mro__ if base.__module__.startswith("sentence_")]
            code = "\n".join(line for source in sources for line in source.splitlines() if "``" not in line)
            if own and any(makes in code for makes in MAKES_PARAMETERS):
                found.add(name)
    assert found == RELEASED


@pytest.mark.defect
@pytest.mark.parametrize("accumulated", few_of([1, 2], [2]))
def test_what_a_loss_trains_is_the_same_on_all_ranks(model: str, tmp_path: Path, accumulated: int) -> None:
    """It begins with other values on each rank."""
    arguments = {"gradient_accumulation_steps": accumulated}
    one, other = run_ranks(2, _train_own, model, str(tmp_path), arguments)
    assert one == other


def _train_own(model: str, folder: str, arguments: dict) -> dict:
    return weights_runs.train_each(model, folder, OWN, **arguments)


@pytest.mark.parametrize("name", few_of(["plain", "guided", "in_ddp"], ["plain"]))
def test_a_loss_that_the_release_trains_rightly_is_left_alone(model: str, tmp_path: Path, name: str) -> None:
    """The same collectives, the same weights to the bit, no file; also with a guide that no one froze."""
    for (called, after, files), (expected_calls, expected, _) in run_ranks(
        2, _collectives, model, str(tmp_path), name
    ):
        assert called == expected_calls
        assert after == expected
        assert ("loss.safetensors" in files) == (name == "in_ddp")  # which has a classifier


def _collectives(model: str, folder: str, name: str) -> tuple:
    kinds = (weights_runs.SentenceTransformerTrainer, weights_runs.AsReleased)
    make_loss = getattr(weights_runs, name)
    return tuple(weights_runs.collectives_of(model, f"{folder}/{kind.__name__}", make_loss, kind) for kind in kinds)


@pytest.mark.defect
@pytest.mark.parametrize("variant", few_of(VARIANTS, ["plain", "evaluated"]))
def test_the_matrix_of_weights_is_right_under_ddp(model: str, tmp_path: Path, variant: str) -> None:
    """Equal on all ranks after each step, and after a resume those of the uninterrupted run."""
    if lacks(variant):
        pytest.skip(lacks(variant))
    assert judge_weights(BY_NAME["ddp"], variant, model, tmp_path).detail == ""


@pytest.mark.defect
def test_one_process_resumes_with_the_weights_of_its_loss(model: str, tmp_path: Path) -> None:
    assert judge_weights(BY_NAME["single"], "plain", model, tmp_path).detail == ""


@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.parametrize(
    "name",
    ["ddp-3", "split", "dispatch", "iterable-ddp", "cross-encoder-flag", "sparse", "multi-vector", "proportional"],
)
def test_each_launch_and_trainer_has_the_same_weights_on_all_ranks(model: str, tmp_path: Path, name: str) -> None:
    scenario = BY_NAME[name]
    if scenario.needs():
        pytest.skip(scenario.needs())
    assert judge_weights(scenario, "plain", model, tmp_path).detail == ""


@pytest.mark.defect
def test_each_model_of_model_init_is_trained(model: str, tmp_path: Path) -> None:
    """As in a hyperparameter search: trained anew from the same seed, a model ends with the same weights."""
    for first, second in run_ranks(2, _train_twice, model, str(tmp_path)):
        assert first == second


def _train_twice(model: str, folder: str) -> list[str]:
    return weights_runs.trained_with_model_init(model, folder)


@pytest.mark.defect
@pytest.mark.parametrize("wrong", ["damaged", "another loss"])
def test_every_rank_refuses_a_file_that_does_not_fit(model: str, tmp_path: Path, wrong: str) -> None:
    """One error that names the file, before the first step."""
    try:
        ended = run_ranks(2, _resume_with, model, str(tmp_path), wrong)
    except RankFailed as failure:  # moments of another shape end a process of the release by a segmentation fault
        ended = [(-1, str(failure))]
    for steps, error in ended:
        assert steps == 0
        assert "checkpoint-2" in error
        assert "loss.safetensors" in error
        said = ("is damaged", "is cut off") if wrong == "damaged" else ("written with another loss",)
        assert any(words in error for words in said)  # a file that was cut off is seen before the model is loaded


def _resume_with(model: str, folder: str, wrong: str) -> tuple[int, str]:
    return weights_runs.resumed_with(model, folder, wrong)
