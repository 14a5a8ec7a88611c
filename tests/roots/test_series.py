"""The pull requests for accelerate and transformers: each applies alone and on the others, and is small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from roots.trees import (
    FOLDERS,
    ROOT,
    SERIES,
    apply,
    folders_of,
    git,
    if_installed,
    patch_of,
    recorded_blobs,
    start_tree,
)

each_series = pytest.mark.parametrize("series", if_installed(*SERIES))
each_folder = pytest.mark.parametrize("folder", FOLDERS)
HEADINGS = ("Symptom", "Reproduction", "Cause", "Change", "What stays", "Tests", "Prior issues", "Objections")


@each_series
def test_each_folder_applies_alone_to_the_pristine_release(series: str, tmp_path: Path) -> None:
    """Strict `git am`, and every file is what the patch records: nothing landed at another place."""
    tree = start_tree(series, tmp_path / "tree")
    release = git(tree, "rev-parse", "HEAD")
    for folder in folders_of(series):
        git(tree, "reset", "--quiet", "--hard", release)
        apply(tree, folder)
        blobs = recorded_blobs(folder)
        assert {path: git(tree, "rev-parse", f"HEAD:{path}") for path in blobs} == blobs


@each_series
def test_all_folders_stack_in_order(series: str, tmp_path: Path) -> None:
    """Strict `git am`, one after the other."""
    tree = apply(start_tree(series, tmp_path / "tree"), *folders_of(series))
    assert git(tree, "status", "--porcelain", "--untracked-files=no") == ""


@each_folder
def test_a_fix_has_less_than_50_source_lines_and_one_test_file(folder: str) -> None:
    """What these maintainers merge: counted are added lines outside of tests."""
    counts = {}
    for part in re.split(r"^(?=diff --git )", patch_of(folder).read_text("utf-8"), flags=re.MULTILINE)[1:]:
        (path,) = re.findall(r"^diff --git a/(\S+)", part)
        counts[path] = len(re.findall(r"^\+(?!\+\+ )", part, re.MULTILINE))
    assert sum(count for path, count in counts.items() if path.startswith("src/")) < 50
    assert len([path for path in counts if path.startswith("tests/")]) == 1


@each_folder
def test_the_text_of_a_pull_request_has_its_form(folder: str) -> None:
    """At most 60 lines; a title; the sections in order; the reproduction's command, its output before and after."""
    text = (ROOT / "patches" / folder / "PULL_REQUEST.md").read_text("utf-8")
    assert len(text.splitlines()) <= 60
    assert text.startswith("# ")
    found = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert found == [heading for heading in HEADINGS if heading in found]
    assert {"Symptom", "Cause", "Change", "Tests", "Objections"} <= set(found)
    for code in re.findall(r"^```python\n(.+?)\n", text, re.MULTILINE):
        assert re.match(r"# (python|torchrun .*) reproduction\.py", code)


@each_series
def test_tests_of_the_series_are_formatted_as_upstream_does(series: str, tmp_path: Path) -> None:
    """Both packages format with ruff, lines of 119 columns."""
    tree = apply(start_tree(series, tmp_path / "tree"), *folders_of(series))
    command = (sys.executable, *["-m", "ruff", "format", "--check", "--isolated", "--line-length", "119", "."])
    done = subprocess.run(command, cwd=tree / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
