"""The release as a git tree, and patches on it, verified.

Guarantee: `build_tree` returns the tree that tree.txt names, or raises `PatchQueueError`. git alone accepts more than
that: a context of one line at another offset, or, inside an ignored folder, nothing at all. Therefore a fix by itself
must give the very blobs that its index lines name; in the stack, where files differ from the release, each commit must
change exactly the files that its patch names, and the end is compared as a whole.
"""

from __future__ import annotations

import functools
import io
import os
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from patchqueue.git import PatchQueueError, git, run
from patchqueue.series import Line, mails, needs, promised

PRISTINE = "pristine"
"""The tag of the first commit: the release, with LF line ends."""
STACK = "stack"
"""The branch on which all fixes are applied."""
_PIP_HINTS = {
    "DO NOT MATCH THE HASHES": "The index serves another file than the pinned one: nothing was installed. Ask whoever "
    "runs that index, or use another one; change the pin only after comparing with the release on PyPI.",
    "No module named pip": "The build runs `python -m pip`: install pip into the environment that builds.",
    "": "The build asks the index that PIP_INDEX_URL or pip's configuration file names; --index-url on the command "
    "line and uv's settings do not reach it. Set one of the two, or PIP_FIND_LINKS to a folder holding the wheel.",
}


@functools.cache
def upstream_wheel(line: Line) -> bytes:
    """The pinned wheel, from the configured index or, in an sdist, from beside upstream.txt; pip checks the sha256."""
    bundled = ["--no-index", "--find-links", str(line.series.resolve())] if any(line.series.glob("*.whl")) else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", *bundled]
        # A dependency, or a source distribution to build, would bring torch into the build.
        command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--dest", folder, "--requirement", str(line.pin.resolve())]
        # A user's constraints may name this very package, from git; they are not about the upstream wheel.
        env = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
        done = run(command, Path(folder), env)
        if done.returncode != 0:
            hint = next(hint for sign, hint in _PIP_HINTS.items() if sign in done.stderr)
            wanted = f"{'=='.join(line.upstream)}, pinned in {line.pin}"
            raise PatchQueueError(f"pip could not get {wanted}:\n{done.stderr.rstrip()}\n{hint}")
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def start_tree(line: Line, tree: Path) -> None:
    """Make `tree` a repository whose only commit is the release, text with LF line ends as in upstream's git."""
    source = tree / line.source
    with zipfile.ZipFile(io.BytesIO(upstream_wheel(line))) as wheel:
        for name in wheel.namelist():
            if not name.startswith(f"{line.package}/"):
                continue
            data = wheel.read(name)
            file = source / name.partition("/")[2]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data if b"\0" in data else data.replace(b"\r\n", b"\n"))
    git(tree, "init", "--quiet", "--template=")  # no hooks from the machine's template folder
    git(tree, "config", "core.autocrlf", "false")  # also for the contributor's own git, on Windows
    (tree / ".git" / "info").mkdir(exist_ok=True)
    (tree / ".git" / "info" / "exclude").write_text("__pycache__/\n.pytest_cache/\n")
    git(tree, "add", "--force", ".")  # whatever an ignore file of the release says
    git(tree, "commit", "--quiet", "--message", f"{' '.join(line.upstream)} as released, with LF line ends")
    git(tree, "tag", PRISTINE)


def apply_alone(fix: Path, tree: Path) -> None:
    """Make a branch of the fix's name: the release, or the fix that it needs, and its patches; blobs as promised."""
    start = needs(fix) or PRISTINE
    if not git(tree, "rev-parse", "--revs-only", start):
        raise PatchQueueError(f"{fix.name} has the trailer 'Needs: {start}', but no fix before it has that name.")
    _apply(mails(fix), tree, fix.name, start, exact=True)


def apply_stack(line: Line, tree: Path) -> None:
    """Make the branch `stack`: the release and the patches of all fixes, each changing the files that it names."""
    _apply(line.patches, tree, STACK, PRISTINE, exact=False)


def tree_id(tree: Path) -> str:
    """The git tree of the stack, with its tests and documents."""
    return git(tree, "rev-parse", f"{STACK}^{{tree}}").strip()


def build_tree(line: Line, tree: Path) -> Path:
    """The release with all fixes, verified, and with the features of the checkout, in the empty folder `tree`."""
    start_tree(line, tree)
    apply_stack(line, tree)
    recorded = line.tree_id.read_text("utf-8").split()[-1:] if line.tree_id.is_file() else []
    if recorded != [tree_id(tree)]:
        raise PatchQueueError(
            f"the patches in {line.series} apply, but to another tree ({tree_id(tree)[:12]}) than tree.txt names "
            f"({''.join(recorded)[:12] or 'none'}): patches were edited by hand, or a folder was added or lost. "
            f"Restore them with git, or look at what differs and run `python -m patchqueue refresh`."
        )
    _compare_checkout(line, tree)
    for feature in line.features:
        source = f"{line.source}/{feature}"
        shutil.copytree(line.root / source, tree / source, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def _apply(patches: list[Path], tree: Path, branch: str, start: str, *, exact: bool) -> None:
    """Make a branch with patches as commits, verified; if one does not apply, without any."""
    git(tree, "checkout", "--quiet", "-B", branch, start)
    try:
        # Neither -3 nor --reject: half an application is none. Line ends are part of the patch.
        git(tree, "am", "--quiet", "--keep-cr", *(str(patch.resolve()) for patch in patches))
    except PatchQueueError as error:
        session, patch = tree / ".git" / "rebase-apply", patches[0]
        on = git(tree, "log", "-1", "--format=%s").strip()
        if session.exists():
            patch = patches[int((session / "next").read_text()) - 1]
            git(tree, "am", "--abort")
        raise PatchQueueError(
            f"{patch.parent.name}/{patch.name} does not apply on top of '{on}'. {error}\n"
            f"Made for another release? Unpack, and in that tree git switch {patch.parent.name}, git am -3 the patch. "
            f"Do two fixes change the same lines? Move those of one, there. Then refresh."
        ) from error
    options = ("--reverse", "--format=tformat:commit", "--raw", "--no-abbrev", "--no-renames")
    commits = git(tree, "log", *options, f"{start}..HEAD").split("commit\n")[1:]
    if len(commits) != len(patches):
        raise PatchQueueError(f"git made {len(commits)} commits of {len(patches)} patches.")
    for patch, text in zip(patches, commits, strict=True):
        raw = re.findall(r"^:\d+ \d+ (\w+) (\w+) [A-Z]\t(.+)$", text, re.MULTILINE)
        changes = {(path, old, new) for old, new, path in raw} ^ promised(patch)
        # A file that differs only in its blobs is in the difference twice.
        paths = [path for path, _, _ in changes]
        differing = sorted({path for path in paths if exact or paths.count(path) == 1})
        if differing:
            raise PatchQueueError(
                f"{patch.parent.name}/{patch.name} applied, but the result is not what its 'index' lines promise: "
                f"{', '.join(differing)}. A patch edited by hand, made with other options, or made on the stack in "
                f"place of the release? Export it again with unpack and refresh."
            )


def _compare_checkout(line: Line, tree: Path) -> None:
    """The own modules in the checkout are those that the series creates, byte for byte; besides, features alone."""
    differing = [
        path
        for path, file in line.own_files().items()
        if not file.is_file() or file.read_bytes() != (tree / path).read_bytes()
    ]
    if differing:
        raise PatchQueueError(
            f"own modules differ from the series: {', '.join(sorted(differing))}. "
            f"Run `python -m patchqueue refresh` to write them into the patches, or restore them with git."
        )
    stray = line.stray_files()
    if stray:
        raise PatchQueueError(
            f"{', '.join(stray)}: created by no patch, and no module of a feature that pyproject.toml names. "
            f"Create own modules by a commit in the unpacked tree and refresh; delete what does not belong."
        )
    for feature in line.features:
        if (tree / line.source / feature).exists() or not (line.root / line.source / feature).is_dir():
            raise PatchQueueError(
                f"pyproject.toml ships the feature {feature!r}, but the release has a {line.source}/{feature} of its "
                f"own, or the checkout has none: rename it, or take it out of [tool.patchqueue]."
            )
