"""The contributor's commands `unpack` and `refresh`, on a toy series."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_queue import (
    FIRST,
    HOOKED,
    OWN,
    PATCHES,
    SECOND,
    TEXT,
    THIRD,
    amend,
    commit,
    copy_checkout,
    queue,
    rewrite,
    run,
    series,
    toy_line,
)


def subjects(tree: Path, branch: str) -> list[str]:
    """The authors and subjects of a branch, the release first."""
    return run(tree, "git", "log", "--reverse", "--format=%an: %s", branch).stdout.splitlines()


def test_each_fix_has_a_branch_of_its_own_and_all_are_stacked(toy: Path) -> None:
    """A fix stands on the release, or on the one that it needs; the stack is checked out, text with LF."""
    tree = toy_line(toy).scratch
    release = "patchqueue: sentence-transformers 6.2.0 as released, with LF line ends"
    module, hook, on_top = (
        f"A Contributor: {subject}" for subject in ("Add a toy module", "Hook the toy in", "Count the toys")
    )
    assert subjects(tree, FIRST) == [release, module]
    assert subjects(tree, SECOND) == [release, hook]
    assert subjects(tree, THIRD) == [release, module, on_top]
    assert subjects(tree, "HEAD") == [release, module, hook, on_top]
    assert b"\r\n" not in (tree / HOOKED).read_bytes()


def test_unpack_keeps_work_that_is_not_in_the_series(checkout: Path) -> None:
    """Running it twice changes nothing, and when the series has moved on it refuses to overwrite."""
    line = toy_line(checkout)
    amend(line.scratch, SECOND, HOOKED, "import os  # a toy", "import os  # my toy")
    assert "is unpacked already; its work is left as it is" in queue(checkout, "unpack").stdout
    assert "my toy" in (line.scratch / HOOKED).read_text("utf-8")
    assert queue(checkout, "check").stdout.endswith("holds work that refresh has not written\n")
    rewrite(line.series / PATCHES[FIRST], "Symptom", "The symptom")
    done = queue(checkout, "unpack", check=False)
    assert done.returncode == 1
    assert "holds work which is not in the series" in done.stdout
    assert "my toy" in (line.scratch / HOOKED).read_text("utf-8")


def test_a_hunk_has_as_much_context_as_it_takes_to_fit_in_one_place(checkout: Path) -> None:
    """Else git would take the nearest of several places in the stack, and the fix's branch would not show it."""
    line = toy_line(checkout)
    place = "            )\n\n        return DataLoader("  # its first two lines stand in nine places
    run(line.scratch, "git", "switch", "--quiet", "--create", "04-in-one-place", "pristine")
    rewrite(line.scratch / HOOKED, place, place.replace("\n\n", "\n        # here\n\n"))
    commit(line.scratch, "Say where")
    queue(checkout, "refresh")
    (patch,) = line.series.glob("04-in-one-place/*.patch")
    assert "+        # here\n \n         return DataLoader(" in patch.read_text("utf-8")


@pytest.mark.wide
def test_unpack_follows_a_series_that_has_moved_on(checkout: Path) -> None:
    """A tree without work of its own is made anew."""
    line = toy_line(checkout)
    rewrite(line.series / PATCHES[SECOND], "Symptom", "The symptom")
    queue(checkout, "unpack")
    assert "The symptom" in run(line.scratch, "git", "log", "-1", "--format=%b", SECOND).stdout


@pytest.mark.wide
def test_a_fix_that_does_not_apply_is_named_and_waits_to_be_applied(checkout: Path) -> None:
    """As on a new release: the other branches are made, its own stands at the release, and refresh loses nothing."""
    line = toy_line(checkout)
    kept = (line.series / PATCHES[SECOND]).read_bytes()
    rewrite(line.series / PATCHES[SECOND], "-import os\n", "-import so\n")
    said = queue(checkout, "unpack", check=False).stdout
    assert f"{PATCHES[SECOND]} does not apply" in said and f"error: patch failed: {HOOKED}:" in said
    assert f"git switch {SECOND}, git am -3" in said and "does not apply at its start" in said
    assert said.count("does not apply on top") == 1
    assert len(subjects(line.scratch, SECOND)) == 1 and len(subjects(line.scratch, THIRD)) == 3
    moved = series(checkout)
    assert f"has no commit on {SECOND}" in queue(checkout, "refresh", check=False).stdout
    assert series(checkout) == moved
    run(line.scratch, "git", "switch", "--quiet", SECOND)
    (checkout / "mail").write_bytes(kept)
    run(line.scratch, "git", "-c", "user.name=A", "-c", "user.email=a@b", "am", "--quiet", str(checkout / "mail"))
    queue(checkout, "refresh")
    assert (line.series / PATCHES[SECOND]).read_bytes() == kept
    assert queue(checkout, "check").stdout == "3 fixes: nothing to object\n"


def test_refresh_is_byte_identical_when_nothing_changed(checkout: Path) -> None:
    """Exporting what was just unpacked writes no file."""
    kept = series(checkout)
    assert queue(checkout, "refresh").stdout == "nothing changed\n"
    assert series(checkout) == kept


def test_refresh_puts_an_edited_own_module_into_the_fix_that_creates_it(checkout: Path) -> None:
    """The fix on top follows, unrelated ones keep every byte, and check is content afterwards."""
    line = toy_line(checkout)
    kept = series(checkout)
    rewrite(checkout / OWN, "hello", "good day")
    assert f" M {OWN}\n" in queue(checkout, "check", check=False).stdout
    said = queue(checkout, "refresh").stdout
    assert said == f"wrote {line.series / PATCHES[FIRST]}\nwrote {line.tree_id}\n"
    assert '+GREETING = "good day"' in (line.series / PATCHES[FIRST]).read_text("utf-8")
    changed = {name for name, data in series(checkout).items() if kept[name] != data}
    assert changed == {str(line.series / PATCHES[FIRST]), str(line.tree_id), str(checkout / OWN)}
    assert "good day" in (line.scratch / OWN).read_text()
    assert len(subjects(line.scratch, THIRD)) == 3
    queue(checkout, "check")
    assert queue(checkout, "refresh").stdout == "nothing changed\n"


@pytest.mark.wide
def test_refresh_exports_a_branch_that_was_amended_and_stacks_anew(checkout: Path) -> None:
    """The patch is made against the release, wherever its lines are on the stack."""
    line = toy_line(checkout)
    amend(line.scratch, SECOND, HOOKED, "import os  # a toy", "import os  # my toy")
    queue(checkout, "refresh")
    assert "+import os  # my toy" in (line.series / PATCHES[SECOND]).read_text("utf-8")
    stacked = (line.scratch / HOOKED).read_text("utf-8")
    assert "import os  # my toy" in stacked and "import json  # two toys" in stacked
    queue(checkout, "check")


@pytest.mark.wide
def test_a_new_branch_becomes_a_folder_and_a_deleted_folder_no_branch(checkout: Path) -> None:
    """Refresh takes up what is new, for the editable install, too; a fix goes with its folder and its own module."""
    line, link = toy_line(checkout), checkout / "build" / "editable" / OWN
    link.parent.mkdir(parents=True)
    run(line.scratch, "git", "switch", "--quiet", "--create", "04-second-toy", "pristine")
    (line.scratch / OWN).with_name("second_toy.py").write_text("SECOND = 2\n")
    (line.scratch / "tests").mkdir()
    (line.scratch / "tests" / "test_second.py").write_text("def test_second() -> None:\n    assert True\n")
    commit(line.scratch, "Add another toy")
    queue(checkout, "refresh")
    (checkout / "patches/sentence-transformers/6.2.0/04-second-toy/PULL_REQUEST.md").write_text(TEXT)
    assert (checkout / OWN).with_name("second_toy.py").read_text() == "SECOND = 2\n"
    assert link.with_name("second_toy.py").read_text() == "SECOND = 2\n"
    queue(checkout, "check")
    shutil.rmtree(line.series / "04-second-toy")
    queue(checkout, "refresh")
    assert "/second_toy.py\n" in queue(checkout, "check", check=False).stdout
    (checkout / OWN).with_name("second_toy.py").unlink()
    queue(checkout, "check")
    assert link.exists() and not link.with_name("second_toy.py").is_symlink()


def test_check_names_files_that_are_in_no_patch(checkout: Path) -> None:
    """A module put into the checkout alone is no part of the package yet."""
    (checkout / OWN).with_name("forgotten.py").touch()
    said = queue(checkout, "check", check=False).stdout
    assert "?? sentence_transformers/base/forgotten.py\n" in said


def edit_both_sides(folder: Path) -> None:
    """An own module with two different edits."""
    rewrite(folder / OWN, "hello", "here")
    amend(toy_line(folder).scratch, FIRST, OWN, "hello", "there")


def edit_without_commit(folder: Path) -> None:
    """A dirty tree."""
    rewrite(toy_line(folder).scratch / HOOKED, "# a toy", "# my toy")


def move_series_on(folder: Path) -> None:
    """A series pulled from elsewhere after work was done."""
    amend(toy_line(folder).scratch, FIRST, OWN, "hello", "there")
    rewrite(toy_line(folder).series / PATCHES[SECOND], "Symptom", "The symptom")


def commit_on_the_stack(folder: Path) -> None:
    """A commit that belongs to no fix."""
    rewrite(toy_line(folder).scratch / HOOKED, "import os  # a toy", "import os  # my toy")
    commit(toy_line(folder).scratch, "Lost")


def commit_beside(folder: Path) -> None:
    """A branch that is no fix's, which the series would lack and the next tree as well."""
    run(toy_line(folder).scratch, "git", "switch", "--quiet", "--create", "wip", SECOND)
    commit_on_the_stack(folder)


def drop_the_commits(folder: Path) -> None:
    """A branch reset to the release."""
    run(toy_line(folder).scratch, "git", "branch", "--quiet", "--force", SECOND, "pristine")


def merge(folder: Path) -> None:
    """A branch with a merge, which no series of mails can hold."""
    tree = toy_line(folder).scratch
    run(tree, "git", "switch", "--quiet", FIRST)
    run(tree, "git", "-c", "user.name=A", "-c", "user.email=a@b", "merge", "--quiet", "--no-edit", SECOND)


def collide(folder: Path) -> None:
    """Two fixes that apply alone, but not on top of each other."""
    amend(toy_line(folder).scratch, SECOND, HOOKED, "\nimport json\n", "\nimport ujson\n")


def create_anothers_module(folder: Path) -> None:
    """Two fixes that create the same own module."""
    tree = toy_line(folder).scratch
    run(tree, "git", "switch", "--quiet", "--create", "04-again", "pristine")
    (tree / OWN).write_text("AGAIN = True\n")
    commit(tree, "Add it again")


def replace_tree(folder: Path) -> None:
    """A folder in the tree's place that is no repository."""
    shutil.rmtree(toy_line(folder).scratch)
    toy_line(folder).scratch.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit_both_sides, f"is of {FIRST}, or has changed there, too"),
        (edit_without_commit, "has uncommitted work"),
        (move_series_on, "holds work which is not in the series"),
        (commit_on_the_stack, "has commits on stack, of no fix"),
        (drop_the_commits, f"has no commit on {SECOND}"),
        (merge, "holds merges, a series cannot"),
        (collide, f"{PATCHES[SECOND]} does not apply on top of 'Add a toy module'"),
        (create_anothers_module, "does not apply on top of 'Count the toys'"),
        (replace_tree, "was not unpacked from the series as it is now"),
        (commit_beside, "has commits on wip, of no fix"),
    ],
)
def test_refresh_refuses_and_writes_nothing(checkout: Path, spoil: Callable[[Path], None], message: str) -> None:
    """Whatever stands in the way of a whole export leaves the series as it was."""
    spoil(checkout)
    kept = series(checkout)
    done = queue(checkout, "refresh", check=False)
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert series(checkout) == kept


def test_a_command_outside_a_checkout_says_so(tmp_path: Path) -> None:
    """There is nothing to unpack in an empty folder."""
    shutil.copytree(copy_checkout(tmp_path / "copy", patches=False) / "patchqueue", tmp_path / "patchqueue")
    assert "is no line of the patch queue" in queue(tmp_path, "unpack", check=False).stdout


def test_a_series_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path, toy: Path) -> None:
    """Neither a folder nor a name under patches/."""
    said = queue(toy, "check", "accelerate/9.9.9", check=False).stdout
    assert "accelerate/9.9.9 is no series and no folder in one. There are: accelerate/1.15.0, " in said
