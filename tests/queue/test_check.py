"""The contributor's command `check`, on a toy series: each rule, broken alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_queue import FIRST, HOOKED, PATCHES, SECOND, THIRD, amend, queue, rewrite, toy_line

from patchqueue.git import PatchQueueError
from patchqueue.rules import check, faults


def test_check_has_nothing_to_object_to_in_a_fresh_export(toy: Path) -> None:
    """What refresh writes passes."""
    assert queue(toy, "check").stdout == "3 fixes: nothing to object\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Forwarded: no", "Forwarded: maybe", "has no trailer 'Forwarded: …'"),
        ("Drop-When: the toys are put away\n", "", "has no trailer 'Drop-When: …'"),
        ("Symptom, cause, change, and how it was tested.\n\n", "", "explains nothing"),
        (HOOKED, "setup.py", "touches setup.py: a patch may touch"),
        ("tests/test_hook.py", "tests/hook.py", "has no test: add one to the patch"),
        ("\nindex ", "\ndeleted file mode 100644\nindex ", "deletes"),
    ],
)
def test_check_sees_a_fault_in_the_text_of_a_patch(checkout: Path, old: str, new: str, message: str) -> None:
    """Each rule for one patch, broken alone."""
    line = toy_line(checkout)
    fix = line.fixes[1]
    assert faults(line, fix) == []
    patch = line.series / PATCHES[SECOND]
    rewrite(patch, old, new)
    if "deleted" in new:
        patch.write_text(patch.read_text().replace(blob_after(patch), "0" * 40))
    assert message in "\n".join(faults(line, fix))


def blob_after(patch: Path) -> str:
    """The blob of the first file after the patch."""
    return patch.read_text().partition("\nindex ")[2].partition("..")[2][:40]


def test_check_asks_for_the_text_of_the_pull_request(checkout: Path) -> None:
    """With a title."""
    line = toy_line(checkout)
    (line.fixes[0] / "PULL_REQUEST.md").write_text("A title\n")
    (line.fixes[1] / "PULL_REQUEST.md").unlink()
    for fix in line.fixes[:2]:
        assert faults(line, fix) == ["has no PULL_REQUEST.md that begins with '# ' and a title"]


@pytest.mark.parametrize("language", ["python", "text"])
def test_check_asks_for_a_reproduction_and_its_output(checkout: Path, language: str) -> None:
    """Of what is for upstream."""
    line = toy_line(checkout)
    fix = line.fixes[1]
    rewrite(fix / "PULL_REQUEST.md", f"```{language}\n", "```\n")
    assert "PULL_REQUEST.md reproduces nothing: add a ```python" in faults(line, fix)[0]
    rewrite(line.series / PATCHES[SECOND], "put away", "put away;\n not for upstream")
    assert faults(line, fix) == []


def test_check_names_a_fix_that_is_needed_and_not_there(checkout: Path) -> None:
    """Before what follows from that."""
    line = toy_line(checkout)
    shutil.rmtree(line.fixes[0])
    said = queue(checkout, "check", check=False).stdout
    assert said == f"patch queue: {THIRD} says 'Needs: {FIRST}', but no fix before it has that name.\n"


def test_check_refuses_what_git_would_export_otherwise(checkout: Path) -> None:
    """A file name that does not follow from the subject, more context, abbreviated blobs, a missing header."""
    line = toy_line(checkout)
    patch = line.series / PATCHES[SECOND]
    patch.rename(patch.with_name("0002-another-name.patch"))
    with pytest.raises(PatchQueueError, match=r"not as git exports it: 0001-Hook-the-toy-in.patch, 0002-another-name"):
        check(line)


@pytest.mark.wide
def test_check_refuses_trailing_whitespace(checkout: Path) -> None:
    """As git sees it."""
    line = toy_line(checkout)
    amend(line.scratch, SECOND, HOOKED, "import os  # a toy\n", "import os  # a toy \n")
    queue(checkout, "refresh")
    assert "trailing whitespace" in queue(checkout, "check", check=False).stdout
