"""The contributor's commands, in the root of the checkout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from patchqueue.git import PatchQueueError
from patchqueue.rules import check
from patchqueue.scratch import refresh, unpack
from patchqueue.series import Line


def main() -> int:
    """Run one command on one line; 1 and a message on stderr when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m patchqueue", description=__doc__)
    parser.add_argument("command", choices=["unpack", "refresh", "check"])
    parser.add_argument("line", nargs="?", default=".")
    chosen = parser.parse_args()
    try:
        line = Line.load(Path.cwd()) if chosen.line == "." else Line.find(chosen.line, Path.cwd())
        print(_run(chosen.command, line))
    except PatchQueueError as error:
        print(f"patch queue: {error}", file=sys.stderr)
        return 1
    return 0


def _run(command: str, line: Line) -> str:
    if command == "unpack":
        return f"unpacked in {unpack(line)}: work there with git, commit, then refresh"
    if command == "refresh":
        said = [f"wrote {file}" for file in refresh(line)] or ["nothing changed"]
        return "\n".join([*said, *(f"not in the package: {path}" for path in line.stray_files())])
    check(line)
    return f"{len(line.fixes)} fixes: nothing to object"


if __name__ == "__main__":
    sys.exit(main())
