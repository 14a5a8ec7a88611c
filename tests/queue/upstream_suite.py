"""Upstream's own tests on the release and on the fork: which pass on one and not on the other?

    python -m tests.queue.upstream_suite CLONE [--at REV] [--fork FOLDER] [pytest's arguments]

CLONE is a clone of upstream's repository, which has the tests; it is not touched. At its tag of the release, or, where
that is not there, at what is checked out. A fix that changes what upstream expects brings that as a *.diff, which is
applied for the fork alone. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from patchqueue.git import PatchQueueError, git
from patchqueue.series import Line
from patchqueue.tree import build_tree, start_tree

HERE = Path(__file__).resolve().parent


def checkout_tests(clone: Path, at: str, folder: Path) -> str:
    """The tests of a commit of `clone`, with the settings of pytest, in `folder`; the commit."""
    # Nothing is copied of what the clone has stored, no hook is taken over.
    git(clone, "clone", "--quiet", "--shared", "--no-checkout", "--template=", str(clone.resolve()), str(folder))
    # The package that is tested is another one; the clone may lack large files.
    git(folder, "sparse-checkout", "set", "tests")
    git(folder, "checkout", "--quiet", "--detach", at)
    return git(folder, "log", "-1", "--format=%h of %cs").strip()


def outcomes(package: Path, tests: Path, hub: Path, arguments: list[str]) -> dict[str, str]:
    """What becomes of each test with the package in the folder `package`."""
    told = hub / "outcomes.json"
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(package), str(HERE)]),
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
        "STAND_IN_OUTCOMES": str(told),
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-m", "pytest", "-p", "hub_stand_in", "-p", "no:cacheprovider", "-p", "no:warnings"]
    command += ["-q", "--tb=no", "--no-header", *(arguments or ["-n", "2"])]
    told.unlink(missing_ok=True)
    subprocess.run(command, cwd=tests, env=env, check=False)
    found: dict[str, str] = json.loads(told.read_text())
    return found


def differing(release: dict[str, str], fork: dict[str, str]) -> list[str]:
    """The tests that pass on one and not on the other, a line each."""
    names = sorted(release.keys() | fork.keys())
    pairs = [(name, release.get(name, "not run"), fork.get(name, "not run")) for name in names]
    return [
        f"{name}: {one} on the release, {other} on the fork"
        for name, one, other in pairs
        if (one == "passed") != (other == "passed")
    ]


def main() -> int:
    """Run the suite twice and compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.queue.upstream_suite", description=__doc__)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--at", help="a commit of the clone (else: the tag of the release, or HEAD)")
    parser.add_argument("--fork", type=Path, help="a folder that holds the package (else: it is built)")
    chosen, arguments = parser.parse_known_args()
    line = Line.load(Path.cwd())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tag = f"v{line.upstream[1]}"
        at = chosen.at or (tag if git(chosen.clone, "tag", "--list", tag) else "HEAD")
        start_tree(line, folder / "release")
        fork = chosen.fork.resolve() if chosen.fork else build_tree(line, folder / "fork")
        env = os.environ | {"PYTHONPATH": str(folder / "release"), "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, str(HERE / "hub_stand_in.py"), str(folder)], env=env, check=True)
        said = checkout_tests(chosen.clone, at, folder / "tests")
        release = outcomes(folder / "release", folder / "tests", folder, arguments)
        for diff in line.series.glob("*/*.diff"):
            git(folder / "tests", "apply", "--3way", str(diff.resolve()))
        found = differing(release, outcomes(fork, folder / "tests", folder, arguments))
        if found:  # once more, one at a time: time-outs, and tests that draw at random, say nothing of the fork
            names = [name.rpartition(": ")[0] for name in found]
            both = [outcomes(package, folder / "tests", folder, names) for package in (folder / "release", fork)]
            found = sorted({*found} & {*differing(*both)})
    counts = {name: list(release.values()).count(name) for name in ("passed", "failed", "skipped")}
    print(*found, f"tests of {said}; release: {counts}; {len(found)} differ", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PatchQueueError as error:
        sys.exit(f"upstream's tests could not be run: {error}")
