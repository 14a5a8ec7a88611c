"""What a fix must look like, and the whole check that CI runs."""

from __future__ import annotations

import email
import re
import tempfile
from pathlib import Path

from patchqueue.git import PatchQueueError
from patchqueue.scratch import export, lay_out, scattered
from patchqueue.series import PACKAGE, Fix, Line, promised
from patchqueue.tree import build_tree

_PATHS = r"(?:{source}|tests|docs)/.+"
_TRAILERS = {"Forwarded": r"no|https?://\S+", "Drop-When": r"\S.*"}
_OURS = re.compile(rf"^(?:{'|'.join([*_TRAILERS, 'Needs'])}): .*\n(?: .*\n)*".encode(), re.MULTILINE)
_HUNK = re.compile(r"^(@@ .+ @@).*\n((?:[ +\-\\].*\n?)+)", re.MULTILINE)
_WIDE = re.compile(r"(?:^|\n .*)\n .*\n .*")
"""Two lines of context before a change, or three between two: more than -U1 gives."""


def check(line: Line) -> None:
    """Raise with everything that is wrong about the series; first what can be seen, then what applying shows."""
    problems = scattered(line)
    for fix in line.fixes:
        title = fix.text.read_text("utf-8")[:2] if fix.text.is_file() else ""
        problems += [] if title == "# " else [f"{fix.name}: has no PULL_REQUEST.md that begins with '# ' and a title"]
        for number, patch in enumerate(fix.patches, 1):
            problems += [f"{fix.name}/{patch.name}: {said}" for said in faults(patch, number, line.source)]
    if problems:
        raise PatchQueueError("\n".join(problems))
    with tempfile.TemporaryDirectory() as folder:
        tree = build_tree(line, Path(folder, "tree"))
        problems = lay_out(line, tree) or [said for fix in line.fixes for said in _reexport(tree, fix, Path(folder))]
    if problems:
        raise PatchQueueError("\n".join(problems))


def _reexport(tree: Path, fix: Fix, folder: Path) -> list[str]:
    """What git writes otherwise than it is kept."""
    fresh = Fix(folder / fix.name)
    export(tree, fresh)
    kept, exported = ({patch.name: patch.read_bytes() for patch in each.patches} for each in (fix, fresh))
    return [
        f"{fix.name}/{name}: not as git exports it. Run unpack, then refresh, and commit."
        for name in sorted({*kept, *exported})
        if kept.get(name) != exported.get(name)
    ]


def faults(patch: Path, number: int, source: str = PACKAGE) -> list[str]:
    """What is wrong with one patch, as its text shows it."""
    text = patch.read_text("utf-8")
    message, _, diff = text.partition("\ndiff --git ")
    diff = f"diff --git {diff}"
    found = _header_faults(message) + _diff_faults(diff)
    if not patch.name.startswith(f"{number:04}-"):
        found.append(f"is number {number} of its folder, so its name must start with {number:04}-")
    paths = re.findall(r"^diff --git a/(.+) b/.+$", diff, re.MULTILINE)
    if {path for path, _, _ in promised(patch)} != set(paths):
        found.append("needs an 'index' line with two full 40-digit blobs for each file: export with --full-index")
    strange = [path for path in paths if not re.fullmatch(_PATHS.format(source=source), path)]
    return found + [f"{path}: a patch may touch {source}/, tests/ and docs/ alone" for path in strange]


def for_upstream(mail: bytes) -> bytes:
    """A patch as upstream is to see it: without the trailers that are for this queue alone."""
    message, start, diff = mail.partition(b"\ndiff --git ")
    body, gap, trailers = message.rstrip(b"\n").rpartition(b"\n\n")
    return body + gap + _OURS.sub(b"", trailers + b"\n") + start + diff


def _header_faults(message: str) -> list[str]:
    """Missing headers, an empty explanation, missing trailers."""
    mail = email.message_from_string(message)
    found = [f"has no {name}: header" for name in ("From", "Date", "Subject") if not mail[name]]
    *body, trailers = str(mail.get_payload()).strip().split("\n\n")
    if not "".join(body).strip():
        found.append("explains nothing: say symptom, cause, change and how it was tested, above the trailers")
    return found + [
        f"has no trailer '{name}: …' that reads {rule} in the last paragraph of its message"
        for name, rule in _TRAILERS.items()
        if not re.search(rf"^{name}: (?:{rule})$", trailers, re.MULTILINE)
    ]


def _diff_faults(diff: str) -> list[str]:
    """Deleted files, context other than one line, whitespace noise."""
    found = ["deletes a file, which the package would then lack"] if "\ndeleted file mode" in diff else []
    for hunk in _HUNK.finditer(diff):
        where, lines = hunk[1], hunk[2].splitlines()
        if _WIDE.search(f"\n{hunk[2]}"):
            found.append(f"{where}: more than one line of context: export with -U1")
        if any(text[0] == "+" and text != text.rstrip() for text in lines):
            found.append(f"{where}: adds trailing whitespace")
        before, after = (_words(lines, sign) for sign in "-+")
        if before == after:
            found.append(f"{where}: changes whitespace alone")
    return found


def _words(lines: list[str], sign: str) -> list[str]:
    """The added or removed lines that are not blank, without trailing whitespace."""
    return [text[1:].rstrip() for text in lines if text[0] == sign and text[1:].strip()]
