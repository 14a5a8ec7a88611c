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
    SECOND,
    commit,
    copy_checkout,
    queue,
    rewrite,
    run,
    series,
    touch_own_module_twice,
    toy_line,
)


def test_unpacked_tree_has_the_release_and_then_each_patch_as_a_commit(toy: Path) -> None:
    """The first commit is upstream's file, LF alone; the later ones carry the contributor's name."""
    tree = toy_line(toy).scratch
    log = run(tree, "git", "log", "--reverse", "--format=%an: %s").stdout.splitlines()
    assert log == [
        "patchqueue: sentence-transformers 6.2.0 as released, with LF line ends",
        "A Contributor: Add a toy module",
        "A Contributor: Hook the toy in",
    ]
    assert b"\r\n" not in (tree / HOOKED).read_bytes()


def test_unpack_keeps_work_that_is_not_in_the_series(checkout: Path) -> None:
    """Running it twice changes nothing, and when the series has moved on it refuses to overwrite."""
    line = toy_line(checkout)
    (line.scratch / HOOKED).write_text("my work\n")
    queue(checkout, "unpack")
    assert (line.scratch / HOOKED).read_text() == "my work\n"
    rewrite(line.series / SECOND, "Symptom", "The symptom")
    done = queue(checkout, "unpack", check=False)
    assert done.returncode == 1
    assert "holds work which is not in the series" in done.stdout
    assert (line.scratch / HOOKED).read_text() == "my work\n"


def test_unpack_follows_a_series_that_has_moved_on(checkout: Path) -> None:
    """A tree without work of its own is made anew."""
    line = toy_line(checkout)
    rewrite(line.series / SECOND, "Symptom", "The symptom")
    queue(checkout, "unpack")
    assert "The symptom" in run(line.scratch, "git", "log", "-1", "--format=%b").stdout


def test_unpack_stops_at_the_patch_that_fails_and_refresh_waits(checkout: Path) -> None:
    """The tree stands at the last good patch, for git am --continue; exporting it now would lose the rest."""
    line = toy_line(checkout)
    rewrite(line.series / SECOND, "-import json\n", "-import jason\n")
    kept = series(checkout)
    assert "stopped there" in queue(checkout, "unpack", check=False).stdout
    assert "not applied to its end" in queue(checkout, "unpack", check=False).stdout
    done = queue(checkout, "refresh", check=False)
    assert "in the middle of an am or a rebase" in done.stdout
    assert series(checkout) == kept


def test_refresh_is_byte_identical_when_nothing_changed(checkout: Path) -> None:
    """Exporting what was just unpacked writes no file."""
    kept = series(checkout)
    assert queue(checkout, "refresh").stdout == "nothing changed\n"
    assert series(checkout) == kept


def test_refresh_folds_an_edited_own_module_into_the_patch_that_creates_it(checkout: Path) -> None:
    """The other patch keeps every byte, the tree follows, and check is content afterwards."""
    line = toy_line(checkout)
    second = (line.series / SECOND).read_bytes()
    rewrite(line.own_file(OWN), "hello", "good day")
    assert "differ from the series" in queue(checkout, "check", check=False).stdout
    assert queue(checkout, "refresh").stdout == f"wrote {line.series / FIRST}\n"
    assert '+GREETING = "good day"' in (line.series / FIRST).read_text("utf-8")
    assert (line.series / SECOND).read_bytes() == second
    assert "good day" in (line.scratch / OWN).read_text()
    queue(checkout, "check")
    assert queue(checkout, "refresh").stdout == "nothing changed\n"


def test_refresh_writes_new_renamed_and_dropped_patches(checkout: Path) -> None:
    """The folder holds what the tree holds: no patch of an earlier export stays behind."""
    line = toy_line(checkout)
    run(line.scratch, "git", "reset", "--quiet", "--hard", "HEAD~1")
    (line.scratch / OWN).with_name("second_toy.py").write_text("SECOND = 2\n")
    commit(line.scratch, "Add another toy")
    queue(checkout, "refresh")
    assert [patch.name for patch in line.patches] == [FIRST, "0002-Add-another-toy.patch"]
    assert (line.own_file(OWN).with_name("second_toy.py")).read_text() == "SECOND = 2\n"
    queue(checkout, "check")
    run(line.scratch, "git", "reset", "--quiet", "--hard", "HEAD~1")
    queue(checkout, "refresh")
    assert not line.own_file(OWN).with_name("second_toy.py").exists()


def test_refresh_names_modules_that_no_patch_creates(checkout: Path) -> None:
    """A module put into the checkout alone is no part of the package yet."""
    toy_line(checkout).own_file(OWN).with_name("forgotten.py").touch()
    said = queue(checkout, "refresh").stdout
    assert said == "nothing changed\nin no patch, so not in the package: sentence_transformers/base/forgotten.py\n"


def edit_both_sides(folder: Path) -> None:
    """An own module with two different edits."""
    line = toy_line(folder)
    rewrite(line.own_file(OWN), "hello", "here")
    rewrite(line.scratch / OWN, "hello", "there")
    run(line.scratch, "git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qa", "--fixup=HEAD~1")
    identity = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "sequence.editor=true")
    run(line.scratch, "git", *identity, "rebase", "-q", "-i", "--autosquash", "pristine")


def edit_without_commit(folder: Path) -> None:
    """A dirty tree."""
    rewrite(toy_line(folder).scratch / HOOKED, "# a toy", "# my toy")


def move_series_on(folder: Path) -> None:
    """A series pulled from elsewhere after unpacking."""
    rewrite(toy_line(folder).series / SECOND, "Symptom", "The symptom")


def remove_own_module(folder: Path) -> None:
    """An own module deleted in the checkout alone."""
    toy_line(folder).own_file(OWN).unlink()


def drop_every_commit(folder: Path) -> None:
    """A tree reset to the release."""
    run(toy_line(folder).scratch, "git", "reset", "--quiet", "--hard", "pristine")


def commit_nothing(folder: Path) -> None:
    """A commit without a change."""
    person = ("-c", "user.name=A", "-c", "user.email=a@b")
    run(toy_line(folder).scratch, "git", *person, "commit", "--quiet", "--allow-empty", "--message", "Nothing")


def remove_tree(folder: Path) -> None:
    """No unpacked tree."""
    shutil.rmtree(folder / "build")


def replace_tree(folder: Path) -> None:
    """A folder in the tree's place that is no repository."""
    shutil.rmtree(toy_line(folder).scratch)
    toy_line(folder).scratch.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit_both_sides, "was edited both in"),
        (edit_without_commit, "has uncommitted changes"),
        (touch_own_module_twice, f"touches {OWN}, which {FIRST} creates"),
        (move_series_on, "refreshing would undo that"),
        (remove_own_module, "is missing: restore it"),
        (drop_every_commit, "holds no commit after pristine"),
        (commit_nothing, "0003-Nothing.patch: its commit changes no file"),
        (remove_tree, "run `python -m patchqueue unpack` first"),
        (replace_tree, "was not made by `python -m patchqueue unpack`"),
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
