"""hatchling's hooks: the metadata, the wheel, the editable install and the sdist of one line of the patch queue."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

# hatchling loads this file by its path, from whichever line's folder is built.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patchqueue.git import PatchQueueError, git
from patchqueue.scratch import link_farm
from patchqueue.series import PACKAGE, Line
from patchqueue.tree import PRISTINE, build_tree, upstream_wheel
from patchqueue.upstream_metadata import project_table

_MUST_LEAD = re.compile(r"#!|[ \t\f]*#.*?coding[:=]")
"""A first or second line that Python reads only there."""


@contextmanager
def _plain_errors() -> Iterator[None]:
    """End the build with the message alone; a traceback would bury it."""
    try:
        yield
    except PatchQueueError as error:
        raise SystemExit(f"\npatch queue: {error}\n") from error


class MetadataHook(MetadataHookInterface):
    """Upstream's metadata under our version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the fields that pyproject.toml declares dynamic."""
        with _plain_errors():
            metadata.update(project_table(Line.load(Path(self.root))))


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]  # the base is generic from hatchling 1.22 on, unused here
    """What goes into the artifact, from a verified temporary tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name every file of the artifact; `version` is hatchling's word for standard or editable."""
        self._temporary = tempfile.TemporaryDirectory()
        with _plain_errors():
            line = Line.load(Path(self.root))
            if version == "editable":
                link_farm(line)
                return
            if self.target_name == "sdist" and not Path(__file__).is_relative_to(line.root):
                raise PatchQueueError(
                    f"an sdist of {line.root} would lack the build code, which all lines share: build a wheel, or "
                    f"install from git+https://…#subdirectory=…, which builds one."
                )
            tree = build_tree(line, Path(self._temporary.name, "tree"))
            if self.target_name == "sdist":
                wheel = Path(self._temporary.name, f"{PACKAGE}-{line.upstream[1]}-py3-none-any.whl")
                wheel.write_bytes(upstream_wheel(line))
                bundled = (line.series / wheel.name).relative_to(line.root)
                build_data["force_include"][str(wheel)] = bundled.as_posix()
            else:
                mark_modified(line, tree)
                build_data["force_include"][str(tree / PACKAGE)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary tree."""
        shutil.rmtree(self._temporary.name)


def mark_modified(line: Line, tree: Path) -> None:
    """Put the notice that section 4(b) of the Apache License asks for at the top of each modified upstream file."""
    notice = f"# Modified from {' '.join(line.upstream)} by the patches that NOTICE describes.\n"
    for name in git(tree, "diff", "--name-only", "--diff-filter=M", PRISTINE, "HEAD", "--", PACKAGE).splitlines():
        if not name.endswith(".py"):
            raise PatchQueueError(f"{name} is patched but cannot carry a notice: a series may modify .py files only.")
        lines = (tree / name).read_text("utf-8").splitlines(keepends=True)
        leading = 0
        while leading < 2 and lines[leading:] and _MUST_LEAD.match(lines[leading]):
            leading += 1
        lines.insert(leading, notice)
        (tree / name).write_text("".join(lines), "utf-8", newline="\n")
