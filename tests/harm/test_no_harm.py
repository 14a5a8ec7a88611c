"""What trains on the release trains on the fork, with the same rows, and nothing louder: the no-harm table.

The table runs once on each, both at a time, in processes of their own (``python -m tests.harm``). What a case saw is
equal, part by part, but where ``differs.json`` says to the letter what the release has wrong, and which fix mends it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harm.table import Case, load

pytestmark = pytest.mark.xdist_group("harm")
ROOT = Path(__file__).parents[2]
PRISTINE = ROOT / "build" / "pristine"
DIFFERS = json.loads(Path(__file__).with_name("differs.json").read_text("utf-8"))
"""By case and number of processes: each part that differs, as every rank saw it on the release and on the fork."""
OTHER_VALUES = "other values"
"""What is logged of another model: the digits of a loss depend on the machine."""
FEW = (
    "sampler_is_the_default",
    "sampler_is_no_duplicates",
    "sampler_is_a_function",
    "log_makes_floats",
    "callback_saves_in_mid_epoch",
    "data_is_transformed_at_random",
    "rank_0_prepares_and_the_others_load",
    "datasets_are_torch_s",
    "stream_is_read",
    "evaluated_and_saved",
    "resumed_in_the_first_epoch_on_two",
    "batches_are_split",
    "loader_is_stateful",
    "search_by_hand",
    "model_is_a_cross_encoder",
)
"""The cases of `make test`; `make test-all` runs the whole table."""
CASES = [
    pytest.param(case, world, id=f"{name}, {world}", marks=[pytest.mark.wide] * (name not in FEW))
    for name, case in load().items()
    for world in case.worlds
]


def command(path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The table on one of the packages, begun."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [path, ROOT])), "PYTHONHASHSEED": "0"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    call = [sys.executable, "-m", "tests.harm", *arguments]
    return subprocess.Popen(
        call, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def fork() -> Path:
    """The folder that holds the package under test."""
    import sentence_transformers

    return Path(sentence_transformers.__file__).parents[1]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """What was seen in the cases that were chosen, on the release and on the fork: by processes, case and rank."""
    folder = tmp_path_factory.mktemp("harm")
    tests = [item for item in request.session.items if "tables" in getattr(item, "fixturenames", ())]
    chosen = {item.callspec.params["case"].name for item in tests}
    shared = ("--shared", str(folder), *(f"--case={name}" for name in sorted(chosen)))
    outs = [folder / "release.json", folder / "fork.json"]
    runs = [command(PRISTINE, str(outs[0]), *shared, "--release"), command(fork(), str(outs[1]), *shared)]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)[-4000:]
    release, forked = (json.loads(out.read_text("utf-8")) for out in outs)
    return release, forked


def seen_by_ranks(ranks: list[dict[str, Any]], rows_differ: bool) -> dict[str, list[Any]]:
    """By part, what each rank saw; of other rows, other values are logged, but under the same names."""
    seen = {part: [rank[part] for rank in ranks] for part in ranks[0]}
    if rows_differ:
        seen["logged"] = [[sorted(record) for record in rank["logged"]] for rank in ranks]
    return seen


@pytest.mark.parametrize(("case", "world"), CASES)
def test_what_trains_on_the_release_trains_on_the_fork(case: Case, world: int, tables: Any) -> None:
    """The same rows, logs, events, warnings, files, collectives, reads and errors on every rank."""
    if case.missing:
        pytest.skip(f"{case.needs} is not installed")
    release, forked = (table[str(world)][case.name] for table in tables)
    assert None not in (*release, *forked), "a rank did not end"
    expected = {**DIFFERS.get(f"{case.name}, {world}", {})}
    expected.pop("because", None)
    others = expected.pop("logged", None) == OTHER_VALUES
    assert not others or [rank["logged"] for rank in release] != [rank["logged"] for rank in forked]
    rows_differ = [rank["rows"] for rank in release] != [rank["rows"] for rank in forked]
    release, forked = (seen_by_ranks(ranks, rows_differ or others) for ranks in (release, forked))
    differ = {part: [release[part], forked[part]] for part in release if release[part] != forked[part]}
    assert differ == expected


def test_what_differs_names_a_case_and_a_fix() -> None:
    """Each difference is there because of a pull request in ``patches/``."""
    assert set(DIFFERS) <= {param.id for param in CASES}
    fixes = {path.name for path in (ROOT / "patches" / "sentence-transformers" / "6.2.0").iterdir()}
    assert {differ["because"] for differ in DIFFERS.values()} <= fixes
