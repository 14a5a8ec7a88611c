"""`python -m patchqueue branch`: a fix, or all, as a branch in a clone of the upstream repository."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from toy_queue import FIRST, HOOKED, HOOKED_TOO, NAME, PATCHES, SECOND, THIRD, commit, queue, rewrite, run, toy_line

from patchqueue.clone import branch, for_upstream, one_line_each
from patchqueue.git import PatchQueueError
from patchqueue.series import PACKAGE, Line
from patchqueue.tree import start_tree

pytestmark = [pytest.mark.wide, pytest.mark.xdist_group("branch")]  # a clone of upstream, made once


@pytest.fixture(scope="module")
def line(toy: Path) -> Line:
    """The toy's line."""
    return toy_line(toy)


@pytest.fixture(scope="module")
def upstream(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's repository at the release, with a test of its own that the release does not hold; to be copied."""
    folder = tmp_path_factory.mktemp("upstream") / "clone"
    folder.mkdir()
    start_tree(line, folder)
    for key, value in (("user.name", "A Maintainer"), ("user.email", "maintainer@example.org")):
        run(folder, "git", "config", key, value)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_old.py").write_text("def test_old() -> None:\n    assert 1 == 1\n")
    commit_all(folder, "tests")
    run(folder, "git", "tag", "v6.2.0")
    return folder


@pytest.fixture
def clone(upstream: Path, tmp_path: Path) -> Path:
    """A clone of the test's own, of a person with a name."""
    return Path(shutil.copytree(upstream, tmp_path / "clone"))


@pytest.fixture
def fixes(line: Line) -> dict[str, Path]:
    """The fixes of the toy, by name."""
    return {fix.name: fix for fix in line.fixes}


def commit_all(clone: Path, message: str) -> None:
    """Commit whatever has changed."""
    run(clone, "git", "add", "--all")
    run(clone, "git", "commit", "--quiet", "--message", message)


def state(clone: Path) -> str:
    """All that a failed command must leave alone."""
    asked = (("log", "--all", "--format=%H %D"), ("status", "--porcelain"), ("worktree", "list"), ("diff",))
    return "".join(run(clone, "git", *command).stdout for command in asked)


def log(clone: Path, name: str) -> list[str]:
    """Author, committer and subject of the commits that a branch adds to what is checked out."""
    return run(clone, "git", "log", "--reverse", "--format=%an, %cn: %s", f"HEAD..{name}").stdout.splitlines()


def test_a_fix_becomes_a_branch_and_the_text_is_printed(line: Line, fixes: dict[str, Path], clone: Path) -> None:
    """From the tag of the release; what is checked out stays as it is, work included, and one push is left."""
    (clone / HOOKED).write_text("work\n")
    before = run(clone, "git", "status", "--branch", "--porcelain").stdout
    said = branch(line, fixes[SECOND], clone, "v6.2.0")
    assert log(clone, "toy-hook") == ["A Contributor, A Maintainer: Hook the toy in"]
    assert run(clone, "git", "diff", "--name-only", "HEAD", "toy-hook").stdout.split() == [
        HOOKED_TOO,
        HOOKED,
        "tests/test_hook.py",
    ]
    assert run(clone, "git", "status", "--branch", "--porcelain").stdout == before
    assert (clone / HOOKED).read_text() == "work\n"
    assert "git push <your fork> toy-hook" in said
    assert "\n\nTitle: A toy\n\nSymptom, cause, change.\n\n```python\n" in said
    assert said.endswith("\n```\n\n```text\nno toy\n```\n```text\ntwo toys\n```")


@pytest.mark.wide
def test_a_fix_brings_the_one_that_it_needs(line: Line, fixes: dict[str, Path], clone: Path) -> None:
    """Unless upstream has it."""
    branch(line, fixes[THIRD], clone)
    assert [text.partition(": ")[2] for text in log(clone, "toy-on-top")] == ["Add a toy module", "Count the toys"]


@pytest.mark.wide
def test_all_fixes_become_one_branch_with_the_tree_of_the_fork(line: Line, clone: Path) -> None:
    """In order; the package is the very one that the build makes."""
    branch(line, None, clone)
    assert len(log(clone, "all-fixes")) == 3
    package = run(clone, "git", "rev-parse", f"all-fixes:{PACKAGE}").stdout
    assert package == run(line.scratch, "git", "rev-parse", f"stack:{PACKAGE}").stdout


def test_what_upstream_has_no_use_for_stays_here(line: Line, fixes: dict[str, Path], clone: Path) -> None:
    """Of a message, the trailers of this queue alone are left out."""
    branch(line, fixes[THIRD], clone)
    message = run(clone, "git", "log", "-1", "--format=%B", "toy-on-top").stdout.strip()
    assert message == "Count the toys\n\nSymptom, cause, change, and how it was tested."


def test_trailers_of_others_go_upstream() -> None:
    """A trailer of ours may go over several lines; the words in the text are no trailers."""
    text = "A\n\nForwarded: as told.\n\n"
    ours, others = "Drop-When: b\n c\nForwarded: no\nNeeds: 01-a\n", "Signed-off-by: D\n"
    assert for_upstream(text + ours + others) == text + others


def test_a_paragraph_of_the_text_is_one_line() -> None:
    """Code, headings, tables and items keep theirs."""
    kept = "## Cause\n#1 said\n\n```python\nprint(\n    1)\n```\nSo:\n```text\n1\n```\n"
    kept += "**Tests.** a\n\n| a |\n|---|\n\n- item\n- item\n1. one\n"
    assert one_line_each(kept) == kept
    assert one_line_each("a\n#2 b\n*c*\n\n- d\n  e\n\n  f\n  g") == "a #2 b *c*\n\n- d e\n\n  f g"


@pytest.mark.wide
def test_what_is_not_for_upstream_is_refused(checkout: Path, clone: Path) -> None:
    """By its Drop-When."""
    line = toy_line(checkout)
    rewrite(line.series / PATCHES[SECOND], "put away", "put away; not for upstream")
    with pytest.raises(PatchQueueError, match=f"{SECOND} is not for upstream"):
        branch(line, line.fixes[1], clone)


def test_an_author_can_be_reached(checkout: Path, clone: Path) -> None:
    """Who makes the branch takes the place of one to whom nobody can write; the date stays; committed now."""
    line = toy_line(checkout)
    patch = line.series / PATCHES[SECOND]
    rewrite(patch, "contributor@example.org", "maintainers@fork.example")
    rewrite(patch, patch.read_text().partition("\nDate: ")[2].partition("\n")[0], "Sun, 6 Feb 2022 08:00:00 +0100")
    branch(line, patch.parent, clone)
    said = run(clone, "git", "log", "-1", "--format=%an %ae %aI%n%ct", "toy-hook").stdout
    assert said.partition("\n")[0] == "A Maintainer maintainer@example.org 2022-02-06T08:00:00+01:00"
    assert abs(int(said.partition("\n")[2]) - time.time()) < 3600


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.wide
def test_what_upstream_has_taken_is_said_and_not_applied(
    squashed: bool, line: Line, fixes: dict[str, Path], clone: Path
) -> None:
    """Whatever commits brought it."""
    branch(line, fixes[FIRST], clone)
    merge = ("--squash",) if squashed else ("--ff-only",)
    run(clone, "git", "merge", "--quiet", *merge, "toy-module")
    run(clone, "git", "branch", "-D", "toy-module")
    if squashed:
        commit_all(clone, "Merged (#1)")
    before = state(clone)
    assert "all of it: no branch was made" in branch(line, fixes[FIRST], clone)
    assert state(clone) == before
    said = branch(line, None, clone)
    assert f"{FIRST}: is there already, left out" in said and f"{SECOND}: committed" in said
    assert len(log(clone, "all-fixes")) == 2


@pytest.mark.wide
def test_what_upstream_has_taken_is_not_inserted_once_more(checkout: Path, clone: Path) -> None:
    """A method and the empty line before the next one: after it the patch's context stands as before."""
    line = toy_line(checkout)
    fix, place = line.series / "04-method", "    def _save("
    run(line.scratch, "git", "switch", "--quiet", "--create", fix.name, "pristine")
    rewrite(line.scratch / HOOKED, place, f"    def toy(self):\n        pass\n\n{place}")
    commit(line.scratch, "Add a method")
    queue(checkout, "refresh")
    (fix / "PULL_REQUEST.md").write_text("# A method\n")
    branch(line, fix, clone)
    run(clone, "git", "merge", "--quiet", "--ff-only", "method")
    run(clone, "git", "branch", "-D", "method")
    assert "all of it: no branch was made" in branch(line, fix, clone)
    rewrite(clone / HOOKED, f"        pass\n\n{place}", f"        pass  # a toy\n\n{place}")
    commit_all(clone, "change it")
    with pytest.raises(PatchQueueError, match=f"04-method does not apply to {HOOKED}"):
        branch(line, fix, clone)


@pytest.mark.wide
def test_what_upstream_has_taken_in_part_is_said(line: Line, fixes: dict[str, Path], clone: Path) -> None:
    """The rest becomes the commit."""
    rewrite(clone / HOOKED_TOO, "\nimport json\n", "\nimport json  # a toy\n")
    commit_all(clone, "half of it")
    assert f"committed; there already: {HOOKED_TOO}" in branch(line, fixes[SECOND], clone)


@pytest.mark.wide
def test_a_clone_that_has_moved_on_is_merged(line: Line, fixes: dict[str, Path], clone: Path) -> None:
    """The patched file has another name, and other lines, than at the release."""
    run(clone, "git", "mv", HOOKED, f"{PACKAGE}/base/loop.py")
    rewrite(clone / PACKAGE / "base" / "loop.py", "\nimport inspect\n", "\nimport inspect  # moved on\n")
    commit_all(clone, "move on")
    branch(line, fixes[SECOND], clone)
    text = run(clone, "git", "show", f"toy-hook:{PACKAGE}/base/loop.py").stdout
    assert "import inspect  # moved on" in text and "import os  # a toy" in text


@pytest.mark.wide
def test_a_change_of_upstreams_own_tests_is_part_of_the_commit(line: Line, clone: Path, tmp_path: Path) -> None:
    """A *.diff beside the patch; the release does not hold the tests that it changes."""
    fix = Path(shutil.copytree(line.series / SECOND, tmp_path / SECOND))
    rewrite(clone / "tests/test_old.py", "1 == 1", "2 == 2")
    (fix / "tests.diff").write_text(run(clone, "git", "diff", "--full-index").stdout)
    run(clone, "git", "checkout", "--quiet", ".")
    branch(line, fix, clone)
    assert "2 == 2" in run(clone, "git", "show", "toy-hook:tests/test_old.py").stdout
    assert log(clone, "toy-hook") == ["A Contributor, A Maintainer: Hook the toy in"]


def conflict(clone: Path) -> None:
    """A line that the fix changes is another one."""
    rewrite(clone / HOOKED_TOO, "\nimport json\n", "\nimport ujson\n")
    commit_all(clone, "conflict")


def gone(clone: Path) -> None:
    """A file that the fix changes is not there any more."""
    (clone / HOOKED_TOO).unlink()
    commit_all(clone, "gone")


def missing_object(clone: Path) -> None:
    """A partial clone, which lacks the text of a file that the fix changes."""
    rewrite(clone / HOOKED_TOO, "\nimport json\n", "\n\nimport json\n")
    commit_all(clone, "move on")
    blob = run(clone, "git", "rev-parse", f"HEAD:{HOOKED_TOO}").stdout.strip()
    (clone / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


def another_project(clone: Path) -> None:
    """A clone of something else."""
    run(clone, "git", "rm", "--quiet", "-r", PACKAGE)
    commit_all(clone, "something else")


def nameless(clone: Path) -> None:
    """A machine on which nobody has committed yet."""
    run(clone, "git", "config", "user.name", "")


def there_already(clone: Path) -> None:
    """A branch of an earlier run."""
    run(clone, "git", "branch", "toy-hook")


def no_tag(clone: Path) -> None:
    """A clone without tags."""
    run(clone, "git", "tag", "-d", "v6.2.0")


def no_clone(clone: Path) -> None:
    """A folder of files."""
    shutil.rmtree(clone / ".git")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (conflict, f"{SECOND} does not apply to {HOOKED_TOO}: made for sentence-transformers==6.2.0"),
        (missing_object, f"git could not merge {SECOND}; nothing was changed. It says:\nerror: invalid object "),
        pytest.param(gone, f"{SECOND} does not apply to {HOOKED_TOO}: made for", marks=pytest.mark.wide),
        (another_project, f"is no clone of sentence-transformers: HEAD has no {PACKAGE}/__init__.py"),
        (nameless, "does not know who commits"),
        (there_already, "has a branch toy-hook already"),
        (no_tag, "has no commit v6.2.0: fetch it (git fetch --tags)"),
        (no_clone, "is no git clone"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_clone_stays(
    spoil, said: str, line: Line, fixes: dict[str, Path], clone: Path
) -> None:
    """One error with the reason, naming the file where it is one; commits, branches and files stay."""
    spoil(clone)
    before = state(clone) if spoil is not no_clone else ""
    with pytest.raises(PatchQueueError) as error:
        branch(line, fixes[SECOND], clone, "v6.2.0" if spoil is no_tag else "HEAD")
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) <= 4
    assert before == (state(clone) if before else "")


def by_command(toy: Path, clone: Path, fix: str = SECOND, **env: str) -> str:
    """`python -m patchqueue branch` in a toy checkout; all that it prints."""
    command = (sys.executable, "-m", "patchqueue", "branch", f"{NAME}/{fix}", str(clone))
    return run(toy, *command, check=False, env=env).stdout


@pytest.mark.wide
def test_a_command_that_is_killed_leaves_the_clone_alone(toy: Path, clone: Path, tmp_path: Path) -> None:
    """No commit, no work tree and no lock stays in it, so that the next run does the whole work."""
    before = state(clone)
    killer = tmp_path / "bin" / "git"
    killer.parent.mkdir()
    killer.write_text(
        f'#!/bin/sh\ncase "$*" in *"cherry-pick"*) kill -9 $PPID;; esac\nexec {shutil.which("git")} "$@"\n'
    )
    killer.chmod(0o755)
    path = f"{killer.parent}{os.pathsep}{os.environ['PATH']}"
    assert by_command(toy, clone, PATH=path, TMPDIR=str(tmp_path)) == ""
    assert state(clone) == before
    assert "has the branch toy-hook" in queue(toy, "branch", SECOND, str(clone)).stdout


def test_a_fix_that_is_not_there_is_answered_with_the_series(toy: Path, clone: Path) -> None:
    """One message; nothing in the clone."""
    assert f"{NAME}/99-nothing is no series" in by_command(toy, clone, "99-nothing")
    assert "/99-nothing is no series" in queue(toy, "branch", "99-nothing", str(clone), check=False).stdout


def test_a_branch_without_git_names_git(toy: Path, clone: Path, tmp_path: Path) -> None:
    """As of the other commands."""
    assert by_command(toy, clone, PATH=str(tmp_path)).startswith("patch queue: git is missing")
