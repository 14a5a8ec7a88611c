"""Each fix by itself: it applies to the pristine release, its tests fail there without it and pass with it, and its
text is a pull request whose reproduction prints what it says.

The stack is tested with the package that is installed: `python -m pytest build/sentence-transformers-6.2.0/tests`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from toy_queue import ROOT, installed, run

from patchqueue.git import git
from patchqueue.series import Line, needs, promised
from patchqueue.tree import PRISTINE, STACK

RELEASED = str(ROOT / "build" / "pristine")
"""The other packages, as released, come from the environment; this one takes the place of the fork."""
SERIES = [Line.load(ROOT).series, ROOT / "patches/accelerate/1.15.0", ROOT / "patches/transformers/5.24.0"]
FIXES = {
    f"{series.parent.name}/{fix.name}": fix
    for series in SERIES
    if (series / "upstream.txt").is_file()
    for fix in sorted(series.glob("[0-9][0-9]-*"))
}
each_fix = pytest.mark.parametrize("name", FIXES)
for_upstream = pytest.mark.parametrize(
    "name", [name for name, fix in FIXES.items() if "```python" in (fix / "PULL_REQUEST.md").read_text("utf-8")]
)


def exported(tree: Path, branch: str, folder: Path) -> Path:
    """The files of a branch, in a folder of their own."""
    git(tree, "worktree", "add", "--quiet", "--detach", str(folder), branch)
    return folder


def environment(package: Path) -> dict[str, str]:
    """An environment in which the packages of a tree come first, and all others are as released."""
    path = os.pathsep.join([str(package / "src"), str(package), RELEASED])
    return {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def its_files(fix: Path) -> set[str]:
    """The files that the patches of a fix bring or change."""
    return {path for patch in fix.glob("*.patch") for path, _, _ in promised(patch)}


def its_tests(fix: Path) -> list[str]:
    """Those that are tests."""
    return sorted(path for path in its_files(fix) if path.startswith("tests/") and Path(path).name.startswith("test_"))


@pytest.mark.wide
@each_fix
def test_the_tests_of_a_fix_fail_on_the_release_and_pass_with_it(name: str, branches, tmp_path: Path) -> None:
    """Red without the fix, green with it, each fix alone (or on the one that it needs)."""
    fix = FIXES[name]
    if not installed(f"{fix.parents[1].name}/{fix.parent.name}"):
        pytest.skip("another release is installed")
    tree = branches(fix.parent)
    patched = exported(tree, fix.name, tmp_path / "patched")
    without = exported(tree, needs(fix) or PRISTINE, tmp_path / "without")
    assert its_tests(fix)
    # A module of the fix's own is there as well: the tests fail because nothing calls it, not because they import it.
    added = [file for file in its_files(fix) if not file.startswith("tests/") and not (without / file).exists()]
    for file in (*its_tests(fix), *added):
        (without / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(patched / file, without / file)
    pytest_command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *its_tests(fix))
    green = run(patched, *pytest_command, check=False, env=environment(patched))
    red = run(without, *pytest_command, check=False, env=environment(without))
    assert green.returncode == 0, green.stdout
    if " passed" not in green.stdout:
        pytest.skip(f"{name}: its tests skip themselves on the packages that are installed")
    assert red.returncode == 1 and " failed" in red.stdout, red.stdout


@pytest.mark.wide
@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.parent.name)
def test_the_tests_of_all_fixes_pass_on_the_stack(series: Path, branches, tmp_path: Path) -> None:
    """Whatever the fixes do to each other."""
    if not installed(f"{series.parent.name}/{series.name}"):
        pytest.skip("another release is installed")
    stack = exported(branches(series), STACK, tmp_path / "stack")
    done = run(stack, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", env=environment(stack))
    assert " failed" not in done.stdout


@for_upstream
def test_the_text_is_a_pull_request(name: str) -> None:
    """A title and at most 60 lines, with a reproduction of about 20 and its output before and after."""
    text = (FIXES[name] / "PULL_REQUEST.md").read_text("utf-8")
    assert text.startswith("# ") and len(text.splitlines()) <= 60
    (script,), outputs = block(text, "python"), block(text, "text")
    assert len(script.splitlines()) <= 25 and len(outputs) == 2


def block(text: str, language: str) -> list[str]:
    """The blocks of one language in a text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.wide
@for_upstream
def test_the_reproduction_prints_what_the_text_says(name: str, branches, tmp_path: Path) -> None:
    """On the release, and with the fix alone, each line of the text's block is printed; the order of ranks is free."""
    fix = FIXES[name]
    if not installed(f"{fix.parents[1].name}/{fix.parent.name}"):
        pytest.skip("another release is installed")
    text = (fix / "PULL_REQUEST.md").read_text("utf-8")
    (script,), (before, after) = block(text, "python"), block(text, "text")
    assert before != after
    tree = branches(fix.parent)
    for start, expected in ((needs(fix) or PRISTINE, before), (fix.name, after)):
        package = exported(tree, start, tmp_path / f"package-{start}")
        said = printed(script, tmp_path / f"run-{start}", package)
        wanted = {line.strip() for line in expected.splitlines()} - {"", "…"}
        assert {line for line in wanted if line not in said} == set(), said


def printed(script: str, folder: Path, package: Path) -> str:
    """What the script prints, started by the command in its first line."""
    folder.mkdir()
    (folder / "reproduction.py").write_text(script, "utf-8")
    program, *arguments = shlex.split(script.partition("\n")[0].removeprefix("# "))
    module = {"python": [], "torchrun": ["-m", "torch.distributed.run"]}[program]
    return run(folder, sys.executable, *module, *arguments, check=False, env=environment(package)).stdout
