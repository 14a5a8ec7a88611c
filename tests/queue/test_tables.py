"""The tables of fixes have a row for each, with its lines as they are."""

from __future__ import annotations

import re
import subprocess

import pytest
from toy_queue import ROOT

SERIES = ROOT / "patches" / "sentence-transformers" / "6.2.0"
FIXES = sorted(path.name for path in SERIES.glob("[0-9]*"))


def lines_added(fix: str) -> tuple[int, str, int]:
    """By a fix: lines of released files, its own module or a dash, and the lines of that."""
    patches = sorted(map(str, (SERIES / fix).glob("*.patch")))
    counts = subprocess.run(["git", "apply", "--numstat", *patches], check=True, capture_output=True, text=True).stdout
    added = {path: int(count) for count, _, path in (line.split("\t") for line in counts.splitlines())}
    released = [path for path in added if path.startswith("sentence_transformers/") and not (ROOT / path).exists()]
    own = [path for path in added if (ROOT / path).exists()]
    assert len(own) <= 1, f"{fix} has {own}: the table has room for one"
    module = own[0].removeprefix("sentence_transformers/") if own else "–"
    return sum(added[path] for path in released), module, sum(added[path] for path in own)


def test_the_series_says_how_many_lines_each_fix_adds() -> None:
    """``patches/README.md``: released lines, own module, its lines."""
    row = re.compile(r"^\| `([0-9][^`]+)` \| (\d+) \| `?([^`|]+)`? \| (\d+|–) \|", re.MULTILINE)
    text = (ROOT / "patches" / "README.md").read_text("utf-8")
    said = {fix: (int(n), module.strip(), int(own.replace("–", "0"))) for fix, n, module, own in row.findall(text)}
    assert said == {fix: lines_added(fix) for fix in FIXES}


@pytest.mark.parametrize("fix", [fix for fix in FIXES if not fix.startswith("9")])
def test_the_page_says_what_each_fix_does(fix: str) -> None:
    """``docs/fixes.md``; those from 90 on are not for upstream."""
    assert f"\n| `{fix}` |" in (ROOT / "docs" / "fixes.md").read_text("utf-8")
