"""hatchling's build hook: the wheel, the editable install and the sdist of one line of the patch queue."""

from __future__ import annotations

import re
import sys
import tempfile
from itertools import takewhile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# hatchling loads this file by its path, from whichever line's folder is built.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patchqueue.git import PatchQueueError, git
from patchqueue.scratch import link_farm
from patchqueue.series import PACKAGE, Line
from patchqueue.tree import PRISTINE, build_tree, upstream_wheel

_MUST_LEAD = re.compile(r"#!|[ \t\f]*#.*?coding[:=]")
"""A first or second line that Python reads only there."""


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]  # the base is generic from hatchling 1.22 on, unused here
    """What goes into the artifact, from a verified temporary tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name every file of the artifact; `version` is hatchling's word for standard or editable."""
        self._temporary = tempfile.TemporaryDirectory()
        try:
            build_data["force_include"].update(self._files(Line.load(Path(self.root)), version == "editable"))
        except PatchQueueError as error:  # the message alone; a traceback would bury it
            raise SystemExit(f"\npatch queue: {error}\n") from error

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary tree."""
        self._temporary.cleanup()

    def _files(self, line: Line, editable: bool) -> dict[str, str]:
        """What hatchling is to put into the artifact: files and folders, each with its path there."""
        ours, theirs = self.metadata.version, line.upstream[1]
        if not ours.startswith(f"{theirs}+"):
            raise PatchQueueError(
                f"pyproject.toml has version {ours}, but {line.pin} pins {theirs}: make it {theirs}+…."
            )
        if editable:
            link_farm(line)
            return {}
        if self.target_name == "sdist" and not Path(__file__).is_relative_to(line.root):
            raise PatchQueueError(
                f"an sdist of {line.root} would lack the build code, which all lines share: build a wheel, or install "
                f"from git+https://…#subdirectory=…, which builds one."
            )
        tree = build_tree(line, Path(self._temporary.name, "tree"))
        if self.target_name == "wheel":
            mark_modified(line, tree)
            return {str(tree / PACKAGE): PACKAGE}
        wheel = Path(self._temporary.name, f"{PACKAGE}-{theirs}-py3-none-any.whl")
        wheel.write_bytes(upstream_wheel(line))
        return {str(wheel): (line.series / wheel.name).relative_to(line.root).as_posix()}


def mark_modified(line: Line, tree: Path) -> None:
    """Put the notice that section 4(b) of the Apache License asks for at the top of each modified upstream file."""
    notice = f"# Modified from {' '.join(line.upstream)} by the patches that NOTICE describes.\n"
    for name in git(tree, "diff", "--name-only", "--diff-filter=M", PRISTINE, "HEAD", "--", PACKAGE).splitlines():
        if not name.endswith(".py"):
            raise PatchQueueError(f"{name} is patched but cannot carry a notice: a series may modify .py files only.")
        lines = (tree / name).read_text("utf-8").splitlines(keepends=True)
        leading = list(takewhile(_MUST_LEAD.match, lines[:2]))
        lines.insert(len(leading), notice)
        (tree / name).write_text("".join(lines), "utf-8", newline="\n")
