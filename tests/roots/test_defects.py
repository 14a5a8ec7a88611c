"""What the pull requests cure: their own tests, and runs of unpatched sentence-transformers on patched packages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from conformance.cells import RIGHT, WEIGHTS
from conformance.results import Results
from roots.trees import FOLDERS, ROOT, SERIES, apply, folders_of, if_installed, python, start_tree

pytestmark = pytest.mark.wide

UNCHANGED = {
    "test_set_epoch_leaves_samplers_without_epoch_alone",
    "test_skip_first_batches_of_dispatcher_skips_whole_steps_1",
    "test_skip_first_batches_of_shard_is_unchanged",
    "test_rotation_of_complete_checkpoints_is_unchanged",
    "test_whole_epochs_are_unchanged",
    "test_dataset_of_another_length_is_unchanged",
}
"""Tests that show what stays as it is; every other one fails on the release."""
AFTER_ACCELERATE = "transformers/5.24.0/04-epoch-by-accelerate"
"""It deletes what accelerate's 01-epoch makes needless, and is tested on that."""
SCENARIOS = (
    *("single", "ddp", "split", "dispatch", "default-ddp"),
    *("cross-encoder-flag", "sparse", "multi-vector"),
)
PARAMETERS_OF_LOSSES = {(scenario, WEIGHTS) for scenario in ("single", "ddp", "split", "dispatch")}
"""These differ between processes, or start anew after a resume, which is for sentence-transformers to mend."""


def outcomes(tests: Path, path: str) -> tuple[set[str], set[str]]:
    """The tests of a folder that pass, and those that fail, with the packages of `path`."""
    done = python(
        "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-o", "addopts=", str(tests), path=path, folder=tests
    )
    failed = set(re.findall(r"^(?:SUB)?FAILED.*::(\w+)", done.stdout, re.MULTILINE))
    passed = set(re.findall(r"^PASSED.*::(\w+)", done.stdout, re.MULTILINE)) - failed
    assert failed or passed, done.stdout
    return passed, failed


@pytest.mark.parametrize("folder", if_installed(*(name for name in FOLDERS if name != AFTER_ACCELERATE)))
def test_tests_of_a_folder_pass_with_it_alone_and_fail_on_the_release(folder: str, tmp_path: Path) -> None:
    """Each test that shows a defect fails without the patch; those of what stays pass on both."""
    series = folder.rpartition("/")[0]
    patched = apply(start_tree(series, tmp_path / "patched"), folder)
    released = start_tree(series, tmp_path / "released")
    passed, failed = outcomes(patched / "tests", str(patched / "src"))
    assert failed == set()
    still_passed, failed = outcomes(patched / "tests", str(released / "src"))
    assert still_passed == passed & UNCHANGED
    assert failed == passed - UNCHANGED


@pytest.mark.parametrize("folder", if_installed(AFTER_ACCELERATE))
def test_the_epoch_arrives_without_the_trainer_reaching_for_it(folder: str, tmp_path: Path) -> None:
    """With accelerate's fix, whole and resumed runs are right without the six lines of transformers."""
    accelerate = apply(start_tree(SERIES[0], tmp_path / "accelerate"), f"{SERIES[0]}/01-epoch")
    transformers = apply(start_tree(SERIES[1], tmp_path / "transformers"), folder)
    path = f"{accelerate / 'src'}:{transformers / 'src'}"
    assert outcomes(transformers / "tests", path) == (
        {"test_epochs_of_sharded_batches", "test_epochs_of_dispatched_batches"},
        set(),
    )


@pytest.mark.parametrize("series", [SERIES[:1], SERIES], ids=["accelerate", "both"])
def test_scenarios_are_right_on_unpatched_sentence_transformers(series: tuple[str, ...], tmp_path: Path) -> None:
    """With accelerate's series, alone or with transformers', all is right on the release but what a loss trains."""
    trees = [apply(start_tree(name, tmp_path / name.split("/")[0]), *folders_of(name)) / "src" for name in series]
    path = ":".join(map(str, (*trees, ROOT / "build" / "pristine", ROOT)))
    chosen = [argument for scenario in SCENARIOS for argument in ("--scenario", scenario)]
    said = python("-m", "conformance", *chosen, "--json", str(tmp_path / "results.json"), path=path, folder=ROOT)
    found = Results.from_json((tmp_path / "results.json").read_text("utf-8")).cells()
    assert {names for names, cell in found.items() if cell.state != RIGHT} == PARAMETERS_OF_LOSSES, said.stdout


EVALUATED = """
import sys

import torch
from accelerate.utils import gather
from transformers import Trainer, TrainingArguments, set_seed


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)

    def forward(self, x, labels):
        return {"loss": ((self.linear(x)[:, 0] - labels) ** 2).mean()}


set_seed(42)
rows = [{"x": torch.randn(4), "labels": torch.tensor(float(row))} for row in range(16)]
bf16, evaluated = sys.argv[1] == "bf16", sys.argv[2] == "evaluate"
args = TrainingArguments("run", max_steps=4, learning_rate=0.1, use_cpu=True, bf16=bf16, report_to="none",
                         disable_tqdm=True, save_strategy="no")
trainer = Trainer(Model(), args, train_dataset=rows, eval_dataset=rows)
if evaluated:
    trainer.evaluate()
trainer.train()
weights = gather(trainer.model.linear.weight.detach().clone())
if trainer.is_world_process_zero():
    print("WEIGHTS", [[value.hex() for value in rank] for rank in weights.tolist()])
"""


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("series", if_installed(SERIES[0]))
def test_evaluating_first_changes_no_weight_of_any_rank(series: str, precision: str, tmp_path: Path) -> None:
    """Two ranks of transformers' own Trainer: apart on the release, one model and the run's own with the fix."""
    script = tmp_path / "train.py"
    script.write_text(EVALUATED, "utf-8")
    patched = apply(start_tree(series, tmp_path / "patched"), f"{series}/03-evaluation-mode")
    released = start_tree(series, tmp_path / "released")

    def weights(tree: Path, first: str) -> list[list[str]]:
        launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script))
        said = python(*launch, precision, first, path=str(tree / "src"), folder=tmp_path).stdout
        (found,) = re.findall(r"WEIGHTS (.+)", said)
        return ast.literal_eval(found)

    whole = weights(released, "train")
    assert whole[0] == whole[1]
    before = weights(released, "evaluate")
    assert before[0] != before[1]
    assert weights(patched, "train") == whole
    assert weights(patched, "evaluate") == whole
