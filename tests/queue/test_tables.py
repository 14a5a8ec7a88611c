"""The tables of fixes have a row for each, with its lines as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from toy_queue import ROOT

from patchqueue.git import git
from patchqueue.series import Line, mails

LINE = Line.load(ROOT)
OWN = LINE.own_modules()


def lines_added(fix: Path) -> tuple[int, str, int]:
    """By a fix: lines of released files, its own module or a dash, and the lines of that."""
    counts = git(ROOT, "apply", "--numstat", *map(str, mails(fix)))
    added = {path: int(count) for count, _, path in (line.split("\t") for line in counts.splitlines())}
    own = [path for path in added if path in OWN]
    assert len(own) <= 1, f"{fix.name} has {own}: the table has room for one"
    released = sum(n for path, n in added.items() if path.startswith(f"{LINE.source}/") and path not in own)
    module = own[0].removeprefix(f"{LINE.source}/") if own else "–"
    return released, module, sum(added[path] for path in own)


def test_the_series_says_how_many_lines_each_fix_adds() -> None:
    """``patches/README.md``: released lines, own module, its lines."""
    row = re.compile(r"^\| `([0-9][^`]+)` \| (\d+) \| `?([^`|]+)`? \| (\d+|–) \|", re.MULTILINE)
    text = (ROOT / "patches" / "README.md").read_text("utf-8")
    said = {fix: (int(n), module.strip(), int(own.replace("–", "0"))) for fix, n, module, own in row.findall(text)}
    assert said == {fix.name: lines_added(fix) for fix in LINE.fixes}


@pytest.mark.parametrize("fix", [fix.name for fix in LINE.fixes if not fix.name.startswith("9")])
def test_the_page_says_what_each_fix_does(fix: str) -> None:
    """``docs/fixes.md``; those from 90 on are not for upstream."""
    assert f"\n| `{fix}` |" in (ROOT / "docs" / "fixes.md").read_text("utf-8")
