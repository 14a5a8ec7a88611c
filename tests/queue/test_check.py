"""The contributor's command `check`, on a toy series: each rule, broken alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_queue import (
    FIRST,
    HOOKED,
    OWN,
    SECOND,
    queue,
    rewrite,
    run,
    touch_own_module_twice,
    toy_line,
)

from patchqueue.rules import faults


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
