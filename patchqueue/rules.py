"""What CI asks of a series: `python -m patchqueue check`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from patchqueue.git import PatchQueueError, git
from patchqueue.scratch import export, lay_out
from patchqueue.series import Line, letter, mails, needs, paths, promised
from patchqueue.tree import PRISTINE, build_tree

_TRAILERS = {"Forwarded": r"no|https?://\S+", "Drop-When": r"\S.*"}


def check(line: Line) -> None:
    """Raise with everything that is wrong about the series."""
    problems = [f"{fix.name}: {said}" for fix in line.fixes for said in faults(line, fix)]
    with tempfile.TemporaryDirectory() as folder:
        tree = build_tree(line, Path(folder, "tree"))
        problems += lay_out(line, tree) or [
            f"{fix.name}: {said}" for fix in line.fixes for said in _reexported(tree, fix, Path(folder, fix.name))
        ]
    if problems:
        raise PatchQueueError("\n".join(problems))


def faults(line: Line, fix: Path) -> list[str]:
    """What the text of a fix shows."""
    found = []
    text = "".join(file.read_text("utf-8") for file in fix.glob("PULL_REQUEST.md"))
    blocks = re.findall("^```(python|text)$", text, re.MULTILINE)
    # What waits for another package's release has nothing to show before it.
    shows = not re.search("not for upstream|^To be filed after ", letter(fix), re.MULTILINE)
    # A line for an older release, which lies in its own folder, is for no pull request.
    if line.series != line.root and not text.startswith("# "):
        found.append("has no PULL_REQUEST.md that begins with '# ' and a title")
    elif line.series != line.root and shows and blocks != ["python", "text", "text"]:
        found.append("PULL_REQUEST.md reproduces nothing: add a ```python and two ```text blocks, before and after")
    if not any(re.fullmatch(r"tests/(?:.+/)?test_\w+\.py", path) for path in paths(fix)):
        found.append("has no test: add one to the patch, tests/…/test_*.py at upstream's own path")
    for patch in mails(fix):
        message = patch.read_text("utf-8").partition("\ndiff --git ")[0]
        *body, trailers = message.partition("\n\n")[2].strip().split("\n\n")
        if not body:
            found.append(f"{patch.name} explains nothing: say symptom, cause, change and tests above the trailers")
        for name, rule in _TRAILERS.items():
            if not re.search(rf"^{name}: (?:{rule})$", trailers, re.MULTILINE):
                found.append(f"{patch.name} has no trailer '{name}: …' that reads {rule} in its last paragraph")
        for path, _, new in sorted(promised(patch)):
            if not path.startswith((f"{line.source}/", "tests/", "docs/")):
                found.append(f"{patch.name} touches {path}: a patch may touch {line.source}/, tests/ and docs/ alone")
            if not new.strip("0"):
                found.append(f"{patch.name} deletes {path}, which the package would then lack")
    return found


def _reexported(tree: Path, fix: Path, folder: Path) -> list[str]:
    """What git, asked for the fix's branch, writes otherwise than it is kept, and what it says of the whitespace."""
    found = []
    export(tree, fix.name, folder)
    kept, exported = ({patch.name: patch.read_bytes() for patch in mails(each)} for each in (fix, folder))
    differing = sorted(name for name in {*kept, *exported} if kept.get(name) != exported.get(name))
    if differing:
        found.append(f"not as git exports it: {', '.join(differing)}. Run unpack, then refresh, and commit")
    try:
        git(tree, "diff", "--check", needs(fix) or PRISTINE, fix.name)
    except PatchQueueError as error:
        found.append(str(error).partition("\n")[2])
    return found
