"""What the pages in docs/ show is what happens."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCKS = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


PAGES = {path.name: list(BLOCKS.finditer(path.read_text("utf-8"))) for path in DOCS.glob("*.md")}
"""The examples of each page."""


@pytest.mark.parametrize("page", sorted(page for page, blocks in PAGES.items() if blocks))
def test_the_examples_of_a_page_run_and_print_what_it_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Python blocks, one after another as a reader would run them; what follows one as text is its output."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    for code, expected in (block.groups() for block in PAGES[page]):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(code, page, "exec"), names)
        assert expected is None or printed.getvalue() == expected


def test_what_a_page_links_to_is_there() -> None:
    """Pictures and pages beside it."""
    for page in DOCS.glob("*.md"):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
        assert [link for link in links if "://" not in link and not (DOCS / link).exists()] == []
