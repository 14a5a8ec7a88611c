"""Copies of the checkout to break, and a toy series of three fixes that stays put when the real one moves."""

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

from patchqueue.scratch import export, refresh
from patchqueue.series import PACKAGE, Line
from patchqueue.tree import start_tree, upstream_wheel

ROOT = Path(__file__).resolve().parents[2]
NAME = "sentence-transformers/6.2.0"
OWN = f"{PACKAGE}/base/toy_epoch.py"
HOOKED = f"{PACKAGE}/base/trainer.py"
HOOKED_TOO = f"{PACKAGE}/base/modules/module.py"
FIRST, SECOND, THIRD = "01-toy-module", "02-toy-hook", "03-toy-on-top"
PATCHES = {
    FIRST: "01-toy-module/0001-Add-a-toy-module.patch",
    SECOND: "02-toy-hook/0001-Hook-the-toy-in.patch",
    THIRD: "03-toy-on-top/0001-Count-the-toys.patch",
}
TEXT = """# A toy

Symptom, cause,
change.

```python
# python reproduction.py
print("two",
      "toys")
```

```text
no toy
```
```text
two toys
```
"""
_MESSAGE = "{}\n\nSymptom, cause, change, and how it was tested.\n\nForwarded: no\nDrop-When: the toys are put away\n"
_PERSON = ("-c", "user.name=A Contributor", "-c", "user.email=contributor@example.org")


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


def queue(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`python -m patchqueue <command>` in a checkout."""
    return run(folder, sys.executable, "-m", "patchqueue", *command, check=check)


def build(
    folder: Path, target: str, out: Path, *, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Build a wheel or an sdist of the checkout with its own build backend."""
    command = (sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out))
    return run(folder, *command, check=check, env=env)


def commit(tree: Path, subject: str, *, needs: str = "") -> None:
    """Commit everything in a tree as a contributor would, under a complete message."""
    run(tree, "git", "add", "--force", ".")
    message = _MESSAGE.format(subject) + (f"Needs: {needs}\n" if needs else "")
    run(tree, "git", *_PERSON, "commit", "--quiet", "--message", message)


def amend(tree: Path, branch: str, file: str, old: str, new: str) -> None:
    """Change a line in the last commit of a fix's branch."""
    run(tree, "git", "switch", "--quiet", branch)
    rewrite(tree / file, old, new)
    run(tree, "git", *_PERSON, "commit", "--quiet", "--all", "--amend", "--no-edit")


def copy_checkout(folder: Path, *, patches: bool) -> Path:
    """Copy what git tracks or would track; the newest series and own packages only if asked for."""
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in listed:
        mine = name.startswith((f"{PACKAGE}/", f"patches/{NAME}/")) and not name.endswith("upstream.txt")
        if (ROOT / name).is_file() and (patches or not mine):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def toy_line(folder: Path) -> Line:
    """The line of a toy checkout, made by hand because `Line.load` refuses a series that is still empty."""
    return Line(folder, folder / "patches" / NAME, folder / PACKAGE, ("toy_feature",))


def make_toy(folder: Path) -> Path:
    """A checkout with one feature, and fixes that create an own module with a test and hook into files of upstream's.

    The third stands on the first and changes its line. The pinned wheel lies in the series, so that no index is asked.
    """
    line = toy_line(copy_checkout(folder, patches=False))
    rewrite(folder / "pyproject.toml", 'features = ["planned", "order"]', 'features = ["toy_feature"]')
    (line.series / f"{PACKAGE}-6.2.0-py3-none-any.whl").write_bytes(upstream_wheel(_pinned(line)))
    (folder / PACKAGE / "toy_feature").mkdir(parents=True)
    (folder / PACKAGE / "toy_feature" / "__init__.py").write_text('"""A feature."""\n')
    tree = folder / "build" / "making"
    start_tree(line, tree)
    run(tree, "git", "switch", "--quiet", "--create", FIRST)
    _add_test(tree, "toy")
    (tree / OWN).write_text('"""A toy."""\n\nGREETING = "hello"\n')
    rewrite(tree / HOOKED, "\nimport json\n", "\nimport json  # a toy\n")
    commit(tree, "Add a toy module")
    run(tree, "git", "switch", "--quiet", "--create", SECOND, "pristine")
    rewrite(tree / HOOKED, "\nimport os\n", "\nimport os  # a toy\n")
    rewrite(tree / HOOKED_TOO, "\nimport json\n", "\nimport json  # a toy\n")
    _add_test(tree, "hook")
    commit(tree, "Hook the toy in")
    run(tree, "git", "switch", "--quiet", "--create", THIRD, FIRST)
    rewrite(tree / HOOKED, "\nimport json  # a toy\n", "\nimport json  # two toys\n")
    _add_test(tree, "on_top")
    commit(tree, "Count the toys", needs=FIRST)
    for name in PATCHES:
        export(tree, name, line.series / name)
        (line.series / name / "PULL_REQUEST.md").write_text(TEXT)
    shutil.rmtree(folder / "build")
    refresh(line)
    return folder


def _add_test(tree: Path, name: str) -> None:
    """A test as a fix brings one."""
    (tree / "tests").mkdir(exist_ok=True)
    (tree / "tests" / f"test_{name}.py").write_text(f"def test_{name}() -> None:\n    assert True\n")


def _pinned(line: Line) -> Line:
    """The checkout's own line, so that the wheel is got once for all tests."""
    return Line(ROOT, ROOT / "patches" / NAME)


def series(folder: Path) -> dict[str, bytes]:
    """Every file that refresh may write."""
    files = [*toy_line(folder).series.rglob("*"), *folder.glob(f"{PACKAGE}/**/*.py")]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def rewrite(file: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")
