"""The reproductions in the texts for upstream print what the texts say, on the release and with the series."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_queue import ROOT, if_installed, run

from patchqueue.series import Line, start_tree

pytestmark = pytest.mark.slow
ROOTS = ("accelerate/1.15.0", "transformers/5.23.0")
FORK = "sentence-transformers/6.2.0"
PRISTINE = str(ROOT / "build" / "pristine")


def block(text: str, language: str) -> list[str]:
    """The blocks of one language in a text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def printed(script: str, folder: Path, path: str) -> str:
    """What the script prints about rows, started by the command in its first line, with `path` before the fork."""
    folder.mkdir()
    (folder / "reproduction.py").write_text(script, "utf-8")
    program, *arguments = shlex.split(script.partition("\n")[0].removeprefix("# "))
    module = {"python": [], "torchrun": ["-m", "torch.distributed.run"]}[program]
    said = run(folder, sys.executable, *module, *arguments, env={"PYTHONPATH": path}).stdout
    return "".join(re.findall(r"(?:whole|resumed|dispatched): \[\[.*\]\]\n", said))


@pytest.mark.parametrize("name", if_installed(*ROOTS, FORK))
def test_reproduction_prints_what_the_text_says(name: str, tree: Callable[[str], Path], tmp_path: Path) -> None:
    """Each text holds the script, its lines as released, and its lines with the change."""
    line = Line.find(name, ROOT)
    text = (line.series / "PULL_REQUEST.md").read_text("utf-8")
    (script,), (released, patched) = block(text, "python"), block(text, "text")
    paths = (PRISTINE, os.environ.get("PYTHONPATH", ""))
    if name in ROOTS:
        start_tree(line, tmp_path / "released")
        paths = (f"{tmp_path / 'released' / 'src'}:{PRISTINE}", f"{tree(name) / 'src'}:{PRISTINE}")
    assert printed(script, tmp_path / "before", paths[0]) == released
    assert printed(script, tmp_path / "after", paths[1]) == patched
    assert released != patched
