"""What trains on the release trains on the fork, with the same rows, and nothing louder: the no-harm table, row by row.

The table runs once on each, both at a time, in processes of their own (``python -m tests.harm``). What a case saw is
equal, part by part, but where the table itself says what the release has wrong.
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

ROOT = Path(__file__).parents[2]
PRISTINE = ROOT / "build" / "pristine"
CASES = [pytest.param(case, world, id=f"{name}, {world}") for name, case in load().items() for world in case.worlds]


def command(path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The table on one of the packages, begun."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [path, ROOT]))}
    environment.pop("PYTEST_XDIST_WORKER", None)
    call = [sys.executable, "-m", "tests.harm", *arguments]
    return subprocess.Popen(call, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def fork() -> Path:
    """The folder that holds the package under test."""
    import sentence_transformers

    return Path(sentence_transformers.__file__).parents[1]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What was seen, on the release and on the fork: by number of processes, case and rank."""
    folder = tmp_path_factory.mktemp("harm")
    shared = ("--shared", str(folder))
    outs = [folder / "release.json", folder / "fork.json"]
    runs = [command(PRISTINE, str(outs[0]), *shared, "--release"), command(fork(), str(outs[1]), *shared)]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)[-4000:]
    release, forked = (json.loads(out.read_text("utf-8")) for out in outs)
    return release, forked


@pytest.mark.parametrize(("case", "world"), CASES)
def test_what_trains_on_the_release_trains_on_the_fork(case: Case, world: int, tables: Any) -> None:
    """The same rows, logs, events, warnings, files, collectives, reads and errors on every rank."""
    if case.missing:
        pytest.skip(f"{case.needs} is not installed")
    release, forked = (table[str(world)][case.name] for table in tables)
    assert None not in (*release, *forked), "a rank did not end"
    differ = {
        part: ([seen[part] for seen in release], [seen[part] for seen in forked])
        for part in release[0]
        if [seen[part] for seen in release] != [seen[part] for seen in forked]
    }
    assert differ == case.expected(world)
