"""`python -m patchqueue lay`: a series onto a checkout of the upstream repository."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from toy_queue import FIRST, HOOKED, HOOKED_TOO, OWN, SECOND, make_toy, rewrite, run, toy_line

from patchqueue.lay import lay
from patchqueue.rules import for_upstream
from patchqueue.series import PACKAGE, Line, PatchQueueError, start_tree


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A toy checkout, and a clone of upstream's repository at the release it is made for; to be copied."""
    toy = make_toy(tmp_path_factory.mktemp("toy"))
    clone = tmp_path_factory.mktemp("upstream") / "clone"
    clone.mkdir()
    start_tree(toy_line(toy), clone)
    return toy, clone


@pytest.fixture
def clone(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A clone of the test's own, of a person with a name."""
    folder = Path(shutil.copytree(made[1], tmp_path / "clone"))
    for key, value in (("user.name", "A Maintainer"), ("user.email", "maintainer@example.org")):
        run(folder, "git", "config", key, value)
    return folder


@pytest.fixture
def line(made: tuple[Path, Path]) -> Line:
    """The toy's line."""
    return toy_line(made[0])


def state(clone: Path) -> str:
    """All that a failed command must leave alone."""
    return "".join(
        run(clone, "git", *command).stdout
        for command in (("log", "--format=%H %D"), ("status", "--porcelain"), ("worktree", "list"), ("diff",))
    )


def test_a_series_becomes_commits_and_the_command_says_which(line: Line, clone: Path) -> None:
    """The contributor stays the author; the message names branch, commits, author and the way back."""
    before = run(clone, "git", "rev-parse", "HEAD").stdout.strip()
    said = lay(line, clone)
    log = run(clone, "git", "log", "--reverse", "--format=%an, %cn: %s", f"{before}..").stdout.splitlines()
    assert log == ["A Contributor, A Maintainer: Add a toy module", "A Contributor, A Maintainer: Hook the toy in"]
    assert "2 of 2 patches" in said and "Hook the toy in" in said and "contributor@example.org" in said
    assert f"git reset --keep {before[:12]}" in said
    assert (clone / OWN).is_file()


def test_what_upstream_has_no_use_for_stays_here(line: Line, clone: Path) -> None:
    """Of a message, the trailers of this queue alone are left out."""
    lay(line, clone)
    message = run(clone, "git", "log", "-1", "--format=%B").stdout.strip()
    assert message == "Hook the toy in\n\nSymptom, cause, change, and how it was tested."


def test_trailers_of_others_go_upstream() -> None:
    """A trailer of ours may go over several lines; the words in the text or in the diff are no trailers."""
    text = b"Subject: A\n\nForwarded: as told.\n\n"
    ours, others, diff = (
        b"Drop-When: b\n c\nForwarded: no\n",
        b"Signed-off-by: D\n",
        b"\ndiff --git a/e b/e\n+Forwarded: no\n",
    )
    assert for_upstream(text + ours + others + diff) == text + others + diff


def squash(clone: Path, onto: str) -> None:
    """Make one commit of all since `onto`, as a merge upstream does."""
    run(clone, "git", "reset", "--quiet", "--soft", onto)
    run(clone, "git", "commit", "--quiet", "--message", "Merged (#1)")


@pytest.mark.parametrize("merged", [lambda clone, onto: None, squash])
def test_a_series_that_is_there_makes_no_commit(merged, line: Line, clone: Path) -> None:
    """The second time, nothing happens, and the message says so, whatever commits brought the series."""
    start = run(clone, "git", "rev-parse", "HEAD").stdout.strip()
    lay(line, clone)
    merged(clone, start)
    before = state(clone)
    assert "already" in lay(line, clone)
    assert state(clone) == before


def test_of_a_series_that_is_there_in_part_the_rest_is_laid(line: Line, clone: Path) -> None:
    """Upstream may have taken the first patch alone, under a message of its own."""
    lay(line, clone)
    laid = run(clone, "git", "rev-parse", "HEAD^{tree}").stdout
    run(clone, "git", "reset", "--quiet", "--hard", "HEAD~1")
    run(clone, "git", "commit", "--quiet", "--amend", "--message", "Merged (#1)")
    assert "1 of 2 patches, the rest is there already" in lay(line, clone)
    assert run(clone, "git", "log", "-2", "--format=%s").stdout == "Hook the toy in\nMerged (#1)\n"
    assert run(clone, "git", "rev-parse", "HEAD^{tree}").stdout == laid


def test_a_checkout_that_has_moved_on_is_merged(line: Line, clone: Path) -> None:
    """Other lines of a patched file may have changed since the release."""
    file = clone / HOOKED
    file.write_text(f"# moved on\n{file.read_text('utf-8')}", "utf-8")
    run(clone, "git", "commit", "--quiet", "--all", "--message", "move on")
    lay(line, clone)
    assert file.read_text("utf-8").startswith("# moved on\n") and "import json  # a toy" in file.read_text("utf-8")


def conflict(clone: Path) -> None:
    """A line that the second patch changes is another one."""
    rewrite(clone / HOOKED_TOO, "\nimport json\n", "\nimport ujson\n")
    run(clone, "git", "commit", "--quiet", "--all", "--message", "conflict")


def already_there(clone: Path) -> None:
    """The own module exists."""
    (clone / OWN).write_text("OTHER = 1\n")
    run(clone, "git", "add", OWN)
    run(clone, "git", "commit", "--quiet", "--message", "already there")


def dirty(clone: Path) -> None:
    """Somebody is at work."""
    (clone / HOOKED).write_text("work\n")


def other_repository(clone: Path) -> None:
    """A clone of something else."""
    run(clone, "git", "rm", "--quiet", "-r", PACKAGE)
    run(clone, "git", "commit", "--quiet", "--message", "something else")


def nameless(clone: Path) -> None:
    """A machine on which nobody has committed yet."""
    run(clone, "git", "config", "user.name", "")


def in_the_way(clone: Path) -> None:
    """Somebody's file, where the series makes one."""
    (clone / OWN).write_text("mine\n")


def ignored_in_the_way(clone: Path) -> None:
    """A file that git would overwrite without a word."""
    (clone / ".git" / "info" / "exclude").write_text(f"{OWN}\n")
    in_the_way(clone)


@pytest.mark.parametrize(
    ("spoil", "names", "innocent"),
    [
        (conflict, (f"{SECOND} does not apply to {HOOKED_TOO}. Nothing was changed",), HOOKED),
        (already_there, (f"{FIRST} does not apply to {OWN}. Nothing was changed",), HOOKED),
        (dirty, ("uncommitted changes", HOOKED), OWN),
        (other_repository, (f"{FIRST} does not apply to {HOOKED}. Nothing was changed",), OWN),
        (nameless, ("does not know who commits", "config user.name", "nothing was changed"), "abort"),
        (in_the_way, (OWN, "Move it away", "Nothing was changed"), HOOKED),
        (ignored_in_the_way, (OWN, "Move it away", "Nothing was changed"), HOOKED),
    ],
)
def test_what_cannot_be_laid_is_named_and_nothing_is_written(spoil, names, innocent, line: Line, clone: Path) -> None:
    """The message names the patch and the file, and no other; commits, branch and files stay."""
    spoil(clone)
    before = state(clone)
    mine = (clone / OWN).read_text() if (clone / OWN).exists() else None
    with pytest.raises(PatchQueueError) as error:
        lay(line, clone)
    assert all(name in str(error.value) for name in names), str(error.value)
    assert innocent not in str(error.value), str(error.value)
    assert state(clone) == before
    assert ((clone / OWN).read_text() if (clone / OWN).exists() else None) == mine


def lay_by_command(toy: Path, clone: Path, **env: str) -> str:
    """`python -m patchqueue lay` in a toy checkout; all that it prints."""
    command = (sys.executable, "-m", "patchqueue", "lay", "sentence-transformers/6.2.0", str(clone))
    return run(toy, *command, check=False, env=env).stdout


def test_a_command_that_is_killed_leaves_the_clone_alone(made: tuple[Path, Path], clone: Path, tmp_path: Path) -> None:
    """No commit, no work tree and no lock stays in it, so that the next run does the whole work."""
    before = state(clone)
    killer = tmp_path / "bin" / "git"
    killer.parent.mkdir()
    killer.write_text(f'#!/bin/sh\ncase "$*" in *" am "*) kill -9 $PPID;; esac\nexec {shutil.which("git")} "$@"\n')
    killer.chmod(0o755)
    path = f"{killer.parent}{os.pathsep}{os.environ['PATH']}"
    assert lay_by_command(made[0], clone, PATH=path, TMPDIR=str(tmp_path)) == ""
    assert state(clone) == before
    assert "2 of 2 patches" in lay_by_command(made[0], clone)


def test_laying_without_git_names_git(made: tuple[Path, Path], clone: Path, tmp_path: Path) -> None:
    """One message, as of the other commands."""
    assert lay_by_command(made[0], clone, PATH=str(tmp_path)).startswith("patch queue: git is missing")


def test_a_clone_without_a_commit_is_refused(line: Line, tmp_path: Path) -> None:
    """There is nothing to lay a patch onto."""
    run(tmp_path, "git", "init", "--quiet")
    with pytest.raises(PatchQueueError, match="has no commit checked out"):
        lay(line, tmp_path)


def test_a_folder_that_is_no_checkout_is_refused(line: Line, tmp_path: Path) -> None:
    """The message says what to name instead."""
    with pytest.raises(PatchQueueError, match="no git checkout"):
        lay(line, tmp_path)


def test_an_unknown_line_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    """Neither a folder nor a name under patches/."""
    pin = tmp_path / "patches" / "accelerate" / "1.0.0" / "upstream.txt"
    pin.parent.mkdir(parents=True)
    pin.touch()
    with pytest.raises(PatchQueueError, match=r"9\.9\.9 is no line and no series\. There are: accelerate/1\.0\.0\."):
        Line.find("accelerate/9.9.9", tmp_path)
