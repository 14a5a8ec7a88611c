"""Each fix is held to the rules of upstream's repository; needs clones of them.

`UPSTREAM_CLONES` is a folder that holds clones under their repositories' names (`sentence-transformers`, `accelerate`,
`transformers`); where one is missing, its fixes are skipped, by name. Their linter is installed, in the version that
they pin, into a folder of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from test_pull_requests import FIXES, exported
from toy_queue import ROOT, run

from patchqueue.clone import branch
from patchqueue.git import PatchQueueError, git
from patchqueue.series import Line, mails, needs, promised

pytestmark = pytest.mark.wide
CLONES = Path(os.environ.get("UPSTREAM_CLONES", "none"))
PINS = (
    (".pre-commit-config.yaml", r"/(ruff)-pre-commit\n(?:.*\n)?\s+rev: v(\S+)"),
    (".pre-commit-config.yaml", r"/(typos)\n\s+rev: v(\S+)"),
    ("setup.py", r"\"(ruff) ?== ?([\d.]+)\""),
)
"""Where the repositories pin their tools."""
with_clone = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(not (CLONES / name.split("/")[0]).is_dir(), reason="no clone of upstream")
        )
        for name in FIXES
    ],
)


def settings(name: str, file: str) -> str:
    """A file in the root of the clone that a fix goes to."""
    return git(CLONES / name.split("/")[0], "show", f"HEAD:{file}")


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory):
    """The program of a package in one version, installed into a folder of its own."""

    @cache
    def install(package: str, version: str) -> str:
        folder = tmp_path_factory.mktemp(package)
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder))
        done = run(folder, *pip, f"{package}=={version}", check=False)
        if done.returncode != 0:
            pytest.skip(f"{package} {version} cannot be installed: {done.stdout[-200:]}")
        return str(folder / "bin" / package)

    return install


@with_clone
def test_the_files_of_a_fix_satisfy_upstreams_linters(name: str, branches, tool, tmp_path: Path) -> None:
    """Ruff and typos by upstream's settings, in the versions that they pin, on each file that the fix touches."""
    fix = FIXES[name]
    tree = exported(branches(fix.parent), fix.name, tmp_path / "tree")
    (tree / "pyproject.toml").write_text(settings(name, "pyproject.toml"), "utf-8")
    files = sorted({path for patch in mails(fix) for path, _, _ in promised(patch) if path.endswith(".py")})
    pins = []
    for file, pin in PINS:
        if git(CLONES / name.split("/")[0], "ls-tree", "HEAD", file):
            pins += re.findall(pin, settings(name, file))
    assert pins
    for package, version in dict(pins).items():
        program = tool(package, version)
        for command in {"ruff": (("check",), ("format", "--check")), "typos": ((),)}[package]:
            run(tree, program, *command, *files)


@with_clone
def test_the_branch_of_a_fix_is_one_that_a_maintainer_can_merge(name: str, tmp_path: Path) -> None:
    """No merge commit and no stray file; tests at upstream's paths, red without the fix and green with it."""
    fix, clone = FIXES[name], tmp_path / "clone"
    line = Line.find(str(fix), ROOT)
    source = CLONES / name.split("/")[0]
    git(source, "clone", "--quiet", "--shared", "--no-checkout", "--template=", str(source.resolve()), str(clone))
    git(clone, "sparse-checkout", "set", line.source, "tests")
    git(clone, "checkout", "--quiet", "--detach", "HEAD")
    for key, value in (("user.name", "A Person"), ("user.email", "person@example.org")):
        git(clone, "config", key, value)
    tag = f"v{line.upstream[1]}"
    start = tag if git(clone, "tag", "--list", tag) else git(clone, "rev-parse", "HEAD").strip()
    try:
        branch(line, fix, clone, start)
    except PatchQueueError as error:
        pytest.skip(str(error))
    made = fix.name.partition("-")[2]
    assert git(clone, "rev-list", "--merges", f"{start}..{made}") == ""
    changed = set(git(clone, "diff", "--name-only", f"{start}...{made}").split())
    wanted = {path for each in line.chain(fix) for patch in mails(each) for path, _, _ in promised(patch)}
    diffs = {path for each in line.chain(fix) for diff in each.glob("*.diff") for path, _, _ in promised(diff)}
    assert changed == wanted | diffs
    assert not needs(fix) or git(clone, "rev-list", "--count", f"{start}..{made}").strip() != "1"
    tests = sorted(path for path in wanted if path.startswith("tests/") and Path(path).name.startswith("test_"))
    env = os.environ | {"PYTHONPATH": f"{clone / 'src'}:{clone}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    git(clone, "checkout", "--quiet", "--detach", made)
    assert subprocess.run(pytest_command, cwd=clone, env=env, check=False).returncode == 0
    git(clone, "checkout", "--quiet", "--detach", start)
    git(clone, "checkout", "--quiet", made, "--", *tests)
    assert subprocess.run(pytest_command, cwd=clone, env=env, check=False).returncode == 1
