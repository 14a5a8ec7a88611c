"""Copies of the checkout to break, and a toy series of two patches that stays put when the real one moves."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from patchqueue.scratch import export
from patchqueue.series import PACKAGE, Line, start_tree

ROOT = Path(__file__).resolve().parents[1]
OWN = f"{PACKAGE}/base/toy_epoch.py"
HOOKED = f"{PACKAGE}/base/trainer.py"
HOOKED_TOO = f"{PACKAGE}/base/modules/module.py"
FIRST, SECOND = "0001-Add-a-toy-module.patch", "0002-Hook-the-toy-in.patch"
_MESSAGE = "{}\n\nSymptom, cause, change, and how it was tested.\n\nForwarded: no\nDrop-When: the toys are put away\n"


def run(
    folder: Path, *command: str, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would, `env` on top of the environment; its whole output is in `stdout`."""
    merged = os.environ | (env or {})
    done = subprocess.run(command, cwd=folder, env=merged, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 or not check, done.stdout
    return done


def installed(name: str) -> bool:
    """Whether the release that a series, `package/release`, is for is the one that is installed, patched or not."""
    package, release = name.split("/")
    return importlib.metadata.version(package).partition("+")[0] == release


def if_installed(*names: str) -> list[Any]:
    """The series as parameters of a test; those for another release than the one installed are skipped."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(not installed(name), reason="another release")) for name in names
    ]


def queue(folder: Path, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`python -m patchqueue <command>` in a checkout."""
    return run(folder, sys.executable, "-m", "patchqueue", command, check=check)


def build(
    folder: Path, target: str, out: Path, *, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Build a wheel or an sdist of the checkout with its own build backend."""
    command = (sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out))
    return run(folder, *command, check=check, env=env)


def commit(tree: Path, subject: str) -> None:
    """Commit everything in a tree as a contributor would, under a complete message."""
    run(tree, "git", "add", "--force", ".")
    person = ("-c", "user.name=A Contributor", "-c", "user.email=contributor@example.org")
    run(tree, "git", *person, "commit", "--quiet", "--message", _MESSAGE.format(subject))


def copy_checkout(folder: Path, *, patches: bool) -> Path:
    """Copy what git tracks or would track; the patches and own modules only if asked for."""
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in listed:
        mine = name.endswith(".patch") or name.startswith(f"{PACKAGE}/")
        if (ROOT / name).is_file() and (patches or not mine):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def toy_line(folder: Path) -> Line:
    """The line of a toy checkout, made by hand because `Line.load` refuses a series that is still empty."""
    return Line(folder, folder / "patches" / "sentence-transformers" / "6.2.0", folder / PACKAGE, "epoch.1")


def make_toy(folder: Path) -> Path:
    """A checkout whose series adds one own module with a test, and hooks it into two files of upstream's.

    Both patches change one line of the first file: as in the real series, neither can be replayed on the other.
    """
    line = toy_line(copy_checkout(folder, patches=False))
    tree = folder / "build" / "making"
    start_tree(line, tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_toy.py").write_text("def test_toy() -> None:\n    assert True\n")
    (tree / OWN).write_text('"""A toy."""\n\nGREETING = "hello"\n')
    rewrite(tree / HOOKED, "\nimport json\n", "\nimport json  # toys\n")
    commit(tree, "Add a toy module")
    rewrite(tree / HOOKED, "\nimport json  # toys\n", "\nimport json  # a toy\n")
    rewrite(tree / HOOKED_TOO, "\nimport json\n", "\nimport json  # a toy\n")
    commit(tree, "Hook the toy in")
    export(tree, line.series)
    line.own_file(OWN).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tree / OWN, line.own_file(OWN))
    shutil.rmtree(folder / "build")
    return folder


def series(folder: Path) -> dict[str, bytes]:
    """Every file that refresh may write."""
    line = toy_line(folder)
    return {str(file): file.read_bytes() for file in (*line.patches, *folder.glob(f"{PACKAGE}/**/*.py"))}


def rewrite(file: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def touch_own_module_twice(folder: Path) -> None:
    """A second commit that edits an own module."""
    line = toy_line(folder)
    rewrite(line.scratch / OWN, "hello", "there")
    commit(line.scratch, "Edit the toy")
