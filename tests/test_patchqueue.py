"""The contributor's commands, and what a build says when something is wrong; all on a toy series."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_queue import FIRST, HOOKED, OWN, SECOND, build, commit, copy_checkout, make_toy, queue, run, toy_line

from patchqueue.rules import faults
from patchqueue.series import PACKAGE


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy checkout, with its unpacked tree; to be copied, not changed."""
    folder = make_toy(tmp_path_factory.mktemp("toy"))
    queue(folder, "unpack")
    return folder


@pytest.fixture
def checkout(toy: Path, tmp_path: Path) -> Path:
    """A toy checkout of the test's own."""
    return Path(shutil.copytree(toy, tmp_path / "checkout"))


def series(folder: Path) -> dict[str, bytes]:
    """Every file that refresh may write."""
    line = toy_line(folder)
    return {str(file): file.read_bytes() for file in (*line.patches, *folder.glob(f"{PACKAGE}/**/*.py"))}


def rewrite(file: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


# --- unpack


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


# --- refresh


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


def touch_own_module_twice(folder: Path) -> None:
    """A second commit that edits an own module."""
    line = toy_line(folder)
    rewrite(line.scratch / OWN, "hello", "there")
    commit(line.scratch, "Edit the toy")


def move_series_on(folder: Path) -> None:
    """A series pulled from elsewhere after unpacking."""
    rewrite(toy_line(folder).series / SECOND, "Symptom", "The symptom")


def remove_own_module(folder: Path) -> None:
    """An own module deleted in the checkout alone."""
    toy_line(folder).own_file(OWN).unlink()


def drop_every_commit(folder: Path) -> None:
    """A tree reset to the release."""
    run(toy_line(folder).scratch, "git", "reset", "--quiet", "--hard", "pristine")


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


# --- check


def test_check_has_nothing_to_object_to_in_a_fresh_export(toy: Path) -> None:
    """What refresh writes passes."""
    assert queue(toy, "check").stdout == "2 patches: nothing to object\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Forwarded: no", "Forwarded: maybe", "has no trailer 'Forwarded: …'"),
        ("Drop-When: the toys are put away\n", "", "has no trailer 'Drop-When: …'"),
        ("Symptom, cause, change, and how it was tested.\n\n", "", "explains nothing"),
        ("From: A Contributor <contributor@example.org>\n", "", "has no From: header"),
        ("Date: ", "Dated: ", "has no Date: header"),
        ("Subject: ", "About: ", "has no Subject: header"),
        (HOOKED, "setup.py", "setup.py: a patch may touch"),
        ("+import json  # a toy\n", "+import json  # a toy \n", "adds trailing whitespace"),
        ("+import json  # a toy\n", "+import json\n", "changes whitespace alone"),
        ("\n import logging\n", "\n import logging\n import os\n import re\n", "more than one line of context"),
        ("\nindex ", "\ndeleted file mode 100644\nindex ", "deletes a file"),
    ],
)
def test_check_sees_a_fault_in_the_text_of_a_patch(checkout: Path, old: str, new: str, message: str) -> None:
    """Each rule for one patch, broken alone."""
    patch = toy_line(checkout).series / SECOND
    assert faults(patch, 2) == []
    rewrite(patch, old, new)
    assert message in "\n".join(faults(patch, 2))


def test_check_asks_for_full_blob_names_and_numbers_in_order(checkout: Path) -> None:
    """Abbreviated blobs verify nothing; a gap in the numbers hides a lost patch."""
    patch = toy_line(checkout).series / SECOND
    for blob in [text.split()[1] for text in patch.read_text().splitlines() if text.startswith("index ")]:
        rewrite(patch, blob, "1234567..89abcde")
    said = "\n".join(faults(patch, 3))
    assert "export with --full-index" in said
    assert "must start with 0003-" in said


def test_check_refuses_a_series_that_git_would_export_otherwise(checkout: Path) -> None:
    """A file name that does not follow from the subject, say."""
    patch = toy_line(checkout).series / SECOND
    patch.rename(patch.with_name("0002-another-name.patch"))
    done = queue(checkout, "check", check=False)
    assert done.returncode == 1
    assert "not as git exports it: 0002-Hook-the-toy-in.patch, 0002-another-name.patch" in done.stdout


def test_check_refuses_own_modules_in_two_patches(checkout: Path) -> None:
    """One patch creates an own module, no other touches it."""
    line = toy_line(checkout)
    touch_own_module_twice(checkout)
    run(
        line.scratch,
        "git",
        "format-patch",
        "-q",
        "-U1",
        "--full-index",
        "-1",
        "--start-number=3",
        "-o",
        str(line.series),
    )
    assert f"touches {OWN}, which {FIRST} creates" in queue(checkout, "check", check=False).stdout


# --- what a build says


def no_patches(folder: Path) -> None:
    """The pyproject.toml without the rest of the repository."""
    shutil.rmtree(folder / "patches")


def empty_series(folder: Path) -> None:
    """The pin without patches."""
    for patch in toy_line(folder).patches:
        patch.unlink()


def wrong_pin(folder: Path) -> None:
    """A sha256 that is not the wheel's."""
    pin = toy_line(folder).pin
    digest = pin.read_text().rstrip()[-64:]
    rewrite(pin, digest, digest[::-1])


def stale_hunk(folder: Path) -> None:
    """A patch made for another release."""
    rewrite(toy_line(folder).series / SECOND, "-import json\n", "-import jason\n")


def hand_edited(folder: Path) -> None:
    """A patch that applies to something else than its index lines say."""
    rewrite(toy_line(folder).series / SECOND, "# a toy", "# another toy")


def without_context(folder: Path) -> None:
    """-U0 patches: git accepts them at another place."""
    line = toy_line(folder)
    rewrite(line.scratch / HOOKED, "import json  # a toy\n", "import json  # a toy\nimport this\n")
    commit(line.scratch, "Insert a line")
    run(
        line.scratch,
        "git",
        "format-patch",
        "-q",
        "-U0",
        "--full-index",
        "-1",
        "--start-number=3",
        "-o",
        str(line.series),
    )


def unsynced_module(folder: Path) -> None:
    """An own module that was edited and not exported."""
    rewrite(toy_line(folder).own_file(OWN), "hello", "good day")


def stray_init(folder: Path) -> None:
    """The file that would shadow the installed package."""
    (folder / "sentence_transformers" / "__init__.py").touch()


def patched_template(folder: Path) -> None:
    """A modified file that cannot carry the notice."""
    line = toy_line(folder)
    template = line.scratch / "sentence_transformers/base/model_card_template.md"
    template.write_text("mine\n" + template.read_text("utf-8"), "utf-8")
    commit(line.scratch, "Change the card")
    queue(folder, "refresh")


def changed_licence(folder: Path) -> None:
    """A licence file that is not upstream's any more."""
    rewrite(folder / "NOTICE.txt", "Hugging Face", "Somebody")


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (no_patches, ["has no upstream.txt", "not the whole checkout"]),
        (empty_series, ["holds no *.patch"]),
        (wrong_pin, ["Expected sha256", "serves another file than the pinned one"]),
        (
            stale_hunk,
            [f"{SECOND} does not apply to", "line ", "expected: import jason", "found:    import json"],
        ),
        (hand_edited, [f"{SECOND} applied, but the result is not what its 'index' lines promise"]),
        (without_context, ["0003-Insert-a-line.patch applied, but the result is not what", HOOKED]),
        (unsynced_module, [f"own modules differ from the series: {OWN}", "refresh"]),
        (stray_init, ["sentence_transformers/__init__.py: in sentence_transformers/ but created by no patch"]),
        (patched_template, ["model_card_template.md is patched but cannot carry a notice"]),
        (changed_licence, ["NOTICE.txt must be upstream's licence file, byte for byte"]),
    ],
)
def test_a_build_that_fails_says_what_to_do_and_makes_nothing(
    checkout: Path, tmp_path: Path, spoil: Callable[[Path], None], messages: list[str]
) -> None:
    """One message, no traceback, no artifact."""
    spoil(checkout)
    done = build(checkout, "wheel", tmp_path / "out", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert [message for message in messages if message not in done.stdout] == [], done.stdout
    assert not list(tmp_path.glob("out/*"))


def test_a_build_without_git_names_git(checkout: Path, tmp_path: Path) -> None:
    """Slim container images have none."""
    done = build(checkout, "wheel", tmp_path / "out", check=False, env={"PATH": str(tmp_path)})
    assert done.returncode != 0
    assert "git is missing" in done.stdout
    assert not list(tmp_path.glob("out/*"))


def test_a_build_that_cannot_reach_the_index_names_the_settings_that_count(checkout: Path, tmp_path: Path) -> None:
    """pip's command line does not reach a build; its variables and its configuration file do."""
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"}
    nowhere |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_INDEX": "0"}
    done = build(checkout, "wheel", tmp_path / "out", check=False, env=nowhere)
    assert done.returncode != 0
    assert "pip could not get sentence-transformers==6.2.0" in done.stdout
    assert "PIP_INDEX_URL or pip's configuration file" in done.stdout
    assert not list(tmp_path.glob("out/*"))


def test_a_command_outside_a_checkout_says_so(tmp_path: Path) -> None:
    """There is nothing to unpack in an empty folder."""
    shutil.copytree(copy_checkout(tmp_path / "copy", patches=False) / "patchqueue", tmp_path / "patchqueue")
    assert "is no line of the patch queue" in queue(tmp_path, "unpack", check=False).stdout


@pytest.mark.slow
def test_pip_shows_the_message_and_installs_nothing(checkout: Path, tmp_path: Path) -> None:
    """The message survives pip's own reporting, in an isolated build."""
    stale_hunk(checkout)
    run(tmp_path, sys.executable, "-m", "venv", "--without-pip", "venv")
    pip = (sys.executable, "-m", "pip", "--python", str(tmp_path / "venv"))
    done = run(tmp_path, *pip, "install", "--no-deps", str(checkout), check=False)
    assert done.returncode != 0
    assert "expected: import jason" in done.stdout
    assert run(tmp_path, *pip, "freeze").stdout == ""
