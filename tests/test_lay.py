"""`python -m patchqueue lay`: a series onto a checkout of the upstream repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_queue import FIRST, HOOKED, OWN, SECOND, make_toy, run, toy_line

from patchqueue.lay import lay
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
    """The contributor stays the author; the message names branch, commits and the way back."""
    before = run(clone, "git", "rev-parse", "HEAD").stdout.strip()
    said = lay(line, clone)
    log = run(clone, "git", "log", "--reverse", "--format=%an, %cn: %s", f"{before}..").stdout.splitlines()
    assert log == ["A Contributor, A Maintainer: Add a toy module", "A Contributor, A Maintainer: Hook the toy in"]
    assert "2 commits for 2 patches" in said and "Hook the toy in" in said
    assert f"git reset --keep {before[:12]}" in said
    assert (clone / OWN).is_file()
    assert len(run(clone, "git", "worktree", "list").stdout.splitlines()) == 1


def test_a_series_that_is_there_makes_no_commit(line: Line, clone: Path) -> None:
    """The second time, nothing happens, and the message says so."""
    lay(line, clone)
    before = state(clone)
    assert "already" in lay(line, clone)
    assert state(clone) == before


def test_a_checkout_that_has_moved_on_is_merged(line: Line, clone: Path) -> None:
    """Other lines of a patched file may have changed since the release."""
    file = clone / HOOKED
    file.write_text(f"# moved on\n{file.read_text('utf-8')}", "utf-8")
    run(clone, "git", "commit", "--quiet", "--all", "--message", "move on")
    lay(line, clone)
    assert file.read_text("utf-8").startswith("# moved on\n") and "import json  # a toy" in file.read_text("utf-8")


def conflict(clone: Path) -> None:
    """The line that the second patch changes is another one."""
    file = clone / HOOKED
    file.write_text(file.read_text("utf-8").replace("\nimport json\n", "\nimport ujson\n"), "utf-8")
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


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (conflict, (SECOND, HOOKED, "Nothing was changed")),
        (already_there, (FIRST, OWN, "Nothing was changed")),
        (dirty, ("uncommitted changes", HOOKED)),
        (other_repository, (SECOND, HOOKED, "Nothing was changed")),
    ],
)
def test_what_cannot_be_laid_is_named_and_nothing_is_written(spoil, names, line: Line, clone: Path) -> None:
    """The message names the patch and the file; commits, branch and work tree stay."""
    spoil(clone)
    before = state(clone)
    with pytest.raises(PatchQueueError) as error:
        lay(line, clone)
    assert all(name in str(error.value) for name in names), str(error.value)
    assert state(clone) == before


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
