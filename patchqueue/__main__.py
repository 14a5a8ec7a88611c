"""The contributor's commands, in the root of the checkout: `python -m patchqueue unpack`, and refresh, check, lay."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from patchqueue.lay import lay
from patchqueue.rules import check
from patchqueue.scratch import refresh, unpack
from patchqueue.series import Line, PatchQueueError


def main() -> int:
    """Run one command on one line; 1 and a message on stderr when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m patchqueue", description=__doc__)
    parser.add_argument(
        "command",
        choices=["unpack", "refresh", "check", "lay"],
        help="unpack: the release and each patch as commits under build/; refresh: write those commits back as the "
        "series, own modules included; check: everything CI asks of the series; lay: the series as commits in a "
        "checkout of upstream's repository",
    )
    parser.add_argument(
        "line", nargs="?", default=".", help="a line's folder, or package/release as under patches/ (the line in .)"
    )
    parser.add_argument("checkout", nargs="?", type=Path, help="for lay: a clone of the upstream repository")
    chosen = parser.parse_args()
    if (chosen.command == "lay") != (chosen.checkout is not None):
        parser.error("lay takes a series and a checkout, the other commands a line alone")
    try:
        line = Line.load(Path.cwd()) if chosen.line == "." else Line.find(chosen.line, Path.cwd())
        print(lay(line, chosen.checkout.resolve()) if chosen.checkout else _run(chosen.command, line))
    except PatchQueueError as error:
        print(f"patch queue: {error}", file=sys.stderr)
        return 1
    return 0


def _run(command: str, line: Line) -> str:
    if command == "unpack":
        return f"unpacked in {unpack(line)}: work there with git, commit, then refresh"
    if command == "refresh":
        said = [f"wrote {file}" for file in refresh(line)] or ["nothing changed"]
        return "\n".join([*said, *(f"in no patch, so not in the package: {path}" for path in line.stray_modules())])
    check(line)
    return f"{len(line.patches)} patches: nothing to object"


if __name__ == "__main__":
    sys.exit(main())
