"""What docs/workarounds.md shows, copied from the page and run on the unpatched release: its table is what happens.

The release is a folder that comes first in the path of a process of its own, so that these tests run where the fork is
installed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conformance.cells import CRASHED, HANGS, ORDER, RESUMES, RIGHT
from conformance.expected import expected
from conformance.stack import installed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "workarounds.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
CALLBACK, SAMPLER, PLANNED, OVERRIDE = BLOCKS
RELEASE = installed().release.partition("+")[0]
LINE = Path(sys.prefix, "pristine")
PRISTINE = LINE if LINE.exists() else ROOT / "build" / "pristine"
SCENARIOS = ("single", "ddp", "split", "dispatch")
PROMISES = (ORDER, *RESUMES.values())
PATIENCE = 1200
"""Seconds for all rows of a release."""


def table() -> dict[tuple[str, str], list[str]]:
    """The cells of the page's table, by release and by the numbers of the workarounds."""
    rows = re.findall(r"^\| (\d\.\d\.\d) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
    return {(release, what): cells.split(" | ") for release, what, cells in rows}


ROWS = {what: cells for (release, what), cells in table().items() if release == RELEASE}


def build(what: str, run: Any, arguments: dict[str, Any], dataset: Any) -> Any:
    """A trainer with the workarounds whose numbers are in ``what``, as the page has them."""
    from conformance.runs import sentence_transformer_trainer

    module = sys.modules["page"] = ModuleType("page")  # a checkpoint pickles the arguments, with the sampler's class
    names = module.__dict__
    for block in (CALLBACK, SAMPLER, *([PLANNED] * ("planned" in what)), *([OVERRIDE] * ("override" in what))):
        exec(compile(block, "docs/workarounds.md", "exec"), names)
    if "planned" in what:
        arguments = {**arguments, "batch_sampler": names["args"].batch_sampler}
    elif "2" in what and "override" not in what:
        arguments = {**arguments, "batch_sampler": names["NoDuplicates"]}
    cls = [names["OwnSamplerTrainer"]] if "override" in what else []
    trainer = sentence_transformer_trainer(run, arguments, dataset, *cls)
    if "1" in what:
        trainer.add_callback(names["SetEpoch"]())
    return trainer


def cell(states: list[str]) -> str:
    """As the page has it: new order each epoch, exact resume; one word where nothing was trained."""
    if CRASHED in states or HANGS in states:
        return "error"
    order, *resumes = (state == RIGHT for state in states)
    return " ".join("✓" if right else "✗" for right in (order, all(resumes)))


def measure() -> None:
    """Run in a process that has the release: print the cells of each row that has a workaround, as JSON."""
    from dataclasses import replace

    from conformance.matrix import judge
    from conformance.runs import small_model
    from conformance.scenarios import BY_NAME

    assert "+epoch" not in installed().release
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = small_model(Path(folder, "model"))
        for what in filter(lambda what: any(map(str.isdigit, what)), ROWS):
            found[what] = []
            for name in SCENARIOS:
                changes = {**BY_NAME[name].changes, "trainer": partial(build, what)}
                judged = judge(
                    replace(BY_NAME[name], changes=changes), model, Path(folder, what, name), 300.0, PROMISES
                )
                found[what].append(cell([judged.cells[promise].state for promise in PROMISES]))
                print(what, name, found[what][-1], judged.cells, file=sys.stderr)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def measured() -> dict[str, list[str]]:
    """The cells of each row of this release."""
    if not PRISTINE.exists():
        pytest.skip("the release is not unpacked; run `make setup`")
    path = os.pathsep.join(map(str, (PRISTINE, ROOT, Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", "import test_workarounds; test_workarounds.measure()"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.xdist_group("workarounds")
@pytest.mark.parametrize("what", [what for what in ROWS if what != "as released"])
def test_a_workaround_cures_what_its_row_says_and_no_more(what: str, measured: dict[str, list[str]]) -> None:
    """Real runs of one process, DDP, `split_batches` and `dispatch_batches`, whole and resumed at three places."""
    assert measured[what] == ROWS[what]


def test_what_the_page_says_of_the_release_is_what_the_matrix_expects() -> None:
    """The rows without a workaround, of each release."""
    rows = {release: cells for (release, what), cells in table().items() if what == "as released"}
    assert set(rows) == {"6.2.0", "5.7.0", "3.3.1"}
    for release, cells in rows.items():
        states = expected(release)
        assert cells == [cell([states[name, promise].release for promise in PROMISES]) for name in SCENARIOS]


def test_each_workaround_is_short_enough_to_copy() -> None:
    """At most 15 lines, blank ones not counted."""
    assert [block for block in BLOCKS if len([line for line in block.splitlines() if line]) > 15] == []
