"""Trees of accelerate and transformers with patches applied, for Python to import in place of the installed release.

A tree holds the package under src/, as upstream's repository does. The files that a patch changes are copies of the
installed release's, under git; everything else is a link to the installed package.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERIES = ("accelerate/1.15.0", "transformers/5.24.0")
FOLDERS = tuple(
    f"{series}/{folder.name}"
    for series in SERIES
    for folder in sorted((ROOT / "patches" / series).iterdir())
    if folder.is_dir()
)
"""Every pull request, as package/release/NN-name."""

_CHANGED = re.compile(r"^diff --git a/(src/\S+) b/\1$", re.MULTILINE)
_BLOB = re.compile(r"^diff --git a/(\S+) b/\1\n(?:new file mode \d+\n)?index [0-9a-f]{40}\.\.([0-9a-f]{40})", re.M)
_MAINTAINER = ("-c", "user.name=Tests", "-c", "user.email=tests@localhost", "-c", "core.autocrlf=false")


def if_installed(*names: str) -> list[object]:
    """Series or folders as parameters of a test; those for another release than the installed one are skipped."""
    parameters = []
    for name in names:
        package, release = name.split("/")[:2]
        other = importlib.metadata.version(package) != release
        parameters.append(pytest.param(name, marks=pytest.mark.skipif(other, reason=f"not {package} {release}")))
    return parameters


def folders_of(series: str) -> list[str]:
    """The pull requests of a series, in order."""
    return [name for name in FOLDERS if name.startswith(f"{series}/")]


def patch_of(folder: str) -> Path:
    """The one patch of a pull request."""
    (patch,) = (ROOT / "patches" / folder).glob("*.patch")
    return patch


def git(tree: Path, *arguments: str) -> str:
    """What git says in a tree; its error is the test's."""
    done = subprocess.run(
        ("git", *_MAINTAINER, *arguments), cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def start_tree(series: str, tree: Path) -> Path:
    """The installed release as a tree without patches."""
    package = series.split("/")[0]
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    installed = Path(spec.origin).parent
    changed = {path for name in folders_of(series) for path in _CHANGED.findall(patch_of(name).read_text("utf-8"))}
    source = tree / "src" / package
    source.mkdir(parents=True)
    for entry in installed.iterdir():
        if entry.name == "__pycache__":
            continue
        if f"src/{package}/{entry.name}" in changed:
            shutil.copyfile(entry, source / entry.name)
        else:
            (source / entry.name).symlink_to(entry)
    git(tree, "init", "--quiet")
    git(tree, "add", "--force", *sorted(changed))
    git(tree, "commit", "--quiet", "--message", "release")
    return tree


def apply(tree: Path, *folders: str) -> Path:
    """Apply pull requests with strict `git am`: no three-way merge, no fuzz."""
    for folder in folders:
        git(tree, "am", "--quiet", str(patch_of(folder)))
    return tree


def recorded_blobs(folder: str) -> dict[str, str]:
    """What each file is after the patch, as the patch itself records it."""
    return dict(_BLOB.findall(patch_of(folder).read_text("utf-8")))


def python(*arguments: str, path: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of `path` first."""
    env = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        (sys.executable, *arguments), cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
