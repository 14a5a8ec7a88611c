"""The series for accelerate and transformers: what their own tests say, and the scenarios on unpatched
sentence-transformers.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from toy_queue import ROOT, if_installed, run

from conformance.cells import RIGHT
from conformance.results import Results
from patchqueue.series import Line, start_tree

SCENARIOS = (
    *("single", "ddp", "split", "dispatch", "default", "default-ddp"),
    *("cross-encoder-flag", "sparse", "multi-vector"),
)
SERIES: dict[str, set[str]] = {
    "accelerate/1.15.0": set(),
    "transformers/5.23.0": {"dispatch, resume in epoch 0", "dispatch, resume in epoch 1"},
}
"""What a series leaves wrong in these scenarios: where a dispatched run goes on, accelerate alone can mend."""
DEFECTS = {
    "accelerate/1.15.0": {
        *(f"test_batches_are_of_the_epoch_set_{name}" for name in ("1_shard", "2_skip")),
        *(f"test_batches_are_of_the_epoch_set_{name}" for name in ("3_skip_shard", "5_skip_skip")),
        *(
            f"test_dispatched_batches_are_of_the_epoch_set_{name}"
            for name in ("0_no_wrapper", "1_skip", "2_skip_skip")
        ),
        "test_dataset_is_told_whatever_its_sampler_takes",
        "test_each_pass_is_of_the_epoch_that_the_loader_counts",
        "test_resumed_epoch_goes_on",
        "test_skipping_a_batch_of_a_dispatcher_skips_a_step_0_dispatch",
    },
    "transformers/5.23.0": {"test_every_epoch_has_its_own_batches", "test_resumed_epoch_goes_on"},
}
"""Tests of the series that fail on the release."""


pytestmark = pytest.mark.slow
each_series = pytest.mark.parametrize("name", if_installed(*SERIES))


def pytest_run(folder: Path, *arguments: str, path: str = "") -> str:
    """What pytest says of files, in a process whose packages `path` puts first."""
    env = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = (sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *arguments)
    return run(folder, *command, check=False, env=env).stdout


@each_series
def test_tests_of_the_series_pass_with_it_and_fail_on_the_release(name: str, tree, tmp_path: Path) -> None:
    """Each test that shows a defect fails without the patches, the others pass on both."""
    patched = tree(name)
    assert re.search(r"^\d+ passed[^f]*$", pytest_run(patched, "tests", path=str(patched / "src")), re.MULTILINE)
    released = tmp_path / "released"
    start_tree(Line.find(name, ROOT), released)
    shutil.copytree(patched / "tests", released / "tests")
    said = pytest_run(released, "tests", path=str(released / "src"))
    failed = set(re.findall(r"^(?:SUB)?FAILED.*::(\w+)", said, re.MULTILINE))
    assert failed == DEFECTS[name], said


@each_series
def test_scenarios_are_right_on_unpatched_sentence_transformers(name: str, tree, tmp_path: Path) -> None:
    """With the series for one root alone, epochs and resumes are right on the released sentence-transformers."""
    path = f"{tree(name) / 'src'}:{ROOT / 'build' / 'pristine'}"
    chosen = [argument for scenario in SCENARIOS for argument in ("--scenario", scenario)]
    command = (sys.executable, "-m", "conformance", *chosen, "--json", str(tmp_path / "results.json"))
    run(ROOT, *command, check=False, env={"PYTHONPATH": path})
    found = Results.from_json((tmp_path / "results.json").read_text("utf-8")).cells()
    assert {", ".join(names): cell for names, cell in found.items() if cell.state != RIGHT}.keys() == SERIES[name]


@each_series
def test_tests_of_the_series_are_formatted_as_upstream_does(name: str, tree) -> None:
    """Both packages format with ruff, lines of 119 columns."""
    command = "-m ruff format --check --isolated --line-length 119 ."
    run(tree(name) / "tests", sys.executable, *command.split())
