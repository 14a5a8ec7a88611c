"""The commands of a contributor, in the root of the checkout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from patchqueue.clone import branch
from patchqueue.git import PatchQueueError
from patchqueue.rules import check
from patchqueue.scratch import link_farm, refresh, unpack, work
from patchqueue.series import Line

_COMMANDS = {
    "unpack": "lay a series out under build/, a branch for each fix and one with all",
    "refresh": "write these branches, and own modules edited in the checkout, back as the series",
    "check": "ask of a series what CI asks",
    "branch": "make a branch of one fix, or of all, in a clone of upstream, and print the text for upstream",
}


def main() -> int:
    """Run one command; 1 and a message on stderr when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m patchqueue", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in _COMMANDS.items():
        command = commands.add_parser(name, help=does, description=does)
        if name != "branch":
            command.add_argument("folder", nargs="?", default=".", help="a series (else: that of the line in .)")
        else:
            command.add_argument("folder", help="a series, or a fix in it")
            command.add_argument("clone", type=Path, help="a clone of upstream's repository")
            command.add_argument("--onto", default="HEAD", help="where the branch starts: a tag, a branch, a commit")
    try:
        print(_run(parser.parse_args()))
    except PatchQueueError as error:
        print(f"patch queue: {error}", file=sys.stderr)
        return 1
    return 0


def _run(chosen: argparse.Namespace) -> str:
    here = Path.cwd()
    line = Line.load(here) if chosen.folder == "." else Line.find(chosen.folder, here)
    if chosen.command == "branch":
        fix = next((fix for fix in line.fixes if fix.name == Path(chosen.folder).name), None)
        return branch(line, fix, chosen.clone, chosen.onto)
    if chosen.command == "check":
        check(line)
        left = f", but {line.scratch} holds work that refresh has not written" if work(line) else ""
        return f"{len(line.fixes)} fixes: nothing to object{left}"
    if chosen.command == "unpack":
        kept = " already; its work is left as it is" if work(line) else ": work there with git, commit, then refresh"
        said = f"{unpack(line)} is unpacked{kept}"
    else:
        said = "\n".join(f"wrote {file}" for file in refresh(line)) or "nothing changed"
    if line.modules and (line.root / "build" / "editable").exists():  # own modules come and go
        link_farm(line)
    return said


if __name__ == "__main__":
    sys.exit(main())
