"""The release as a git tree, and patches on it, verified.

Guarantee: `build_tree` returns the tree that tree.txt names, or raises `PatchQueueError`. git alone accepts more than
that: a context of one line at another offset, say. Therefore a fix by itself must give the very blobs that its index
lines name, and the stack of all, where files differ from the release, is compared as a whole.
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
_PIP_HINT = (
    "The build asks the index that PIP_INDEX_URL or pip's configuration file names; --index-url on the command line "
    "and uv's settings do not reach it. PIP_FIND_LINKS may name a folder with the wheel. If the hashes do not match, "
    "the index serves another file than the pinned one: ask whoever runs it. If there is no module named pip, install "
    "it into the environment that builds."
)


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
            wanted = f"{'=='.join(line.upstream)}, pinned in {line.pin}"
            raise PatchQueueError(f"pip could not get {wanted}:\n{done.stderr.rstrip()}\n{_PIP_HINT}")
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def start_tree(line: Line, tree: Path) -> None:
    """Make `tree` a repository whose only commit is the release, text with LF line ends as in upstream's git."""
    source = tree / line.source
    with zipfile.ZipFile(io.BytesIO(upstream_wheel(line))) as wheel:
        for name in wheel.namelist():
            if name.startswith(f"{source.name}/"):
                data, file = wheel.read(name), source.parent / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data if b"\0" in data else data.replace(b"\r\n", b"\n"))
    # No hooks from the machine's template folder, and no branch but ours.
    git(tree, "-c", f"init.defaultBranch={STACK}", "init", "--quiet", "--template=")
    git(tree, "config", "core.autocrlf", "false")  # also for the contributor's own git, on Windows
    (tree / ".git" / "info").mkdir(exist_ok=True)
    (tree / ".git" / "info" / "exclude").write_text("__pycache__/\n.pytest_cache/\n")
    git(tree, "add", "--force", ".")  # whatever an ignore file of the release says
    git(tree, "commit", "--quiet", "--message", f"{' '.join(line.upstream)} as released, with LF line ends")
    git(tree, "tag", PRISTINE)


def apply_alone(fix: Path, tree: Path) -> None:
    """Make a branch of the fix's name: the release, or the fix that it needs, and its patches; blobs as promised."""
    start = needs(fix) or PRISTINE
    _apply(mails(fix), tree, fix.name, start)
    wanted = {path: blob for patch in mails(fix) for path, _, blob in promised(patch)}
    raw = git(tree, "diff-tree", "-r", "--no-renames", start, fix.name)
    made = {path: blob for blob, path in re.findall(r"^:\S+ \S+ \w+ (\w+) \w\t(.+)$", raw, re.MULTILINE)}
    if made != wanted:
        differing = sorted({path for path, _ in made.items() ^ wanted.items()})
        raise PatchQueueError(
            f"{fix.name} applied, but the result is not what its 'index' lines promise: {', '.join(differing)}. A "
            f"patch edited by hand, made with other options, or made on the stack in place of the release? It is "
            f"applied: unpack, look at its branch, then refresh."
        )


def apply_stack(line: Line, tree: Path) -> None:
    """Make the branch `stack`: the release and the patches of all fixes."""
    _apply(line.patches, tree, STACK, PRISTINE)


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
    if line.modules:
        _add_checkout(line, line.modules, tree)
    return tree


def _apply(patches: list[Path], tree: Path, branch: str, start: str) -> None:
    """Make a branch with patches as commits; if one does not apply, without any."""
    git(tree, "checkout", "--quiet", "-B", branch, start)
    try:
        # Neither -3 nor --reject: half an application is none. Line ends are part of the patch.
        git(tree, "am", "--quiet", "--keep-cr", *(str(patch.resolve()) for patch in patches))
    except PatchQueueError as error:
        patch, said = patches[0], str(error).partition("\n")[2]
        on = git(tree, "log", "-1", "--format=%s").strip()
        session = tree / ".git" / "rebase-apply"
        if session.exists():
            patch = patches[int((session / "next").read_text()) - 1]
            git(tree, "am", "--abort")
        raise PatchQueueError(
            f"{patch.parent.name}/{patch.name} does not apply on top of '{on}':\n{said}\n"
            f"Is it broken? Restore it with git, and unpack. Made for another release? Unpack, and in that tree "
            f"git switch {patch.parent.name}, git am -3 the patch; then refresh. "
            f"Do two fixes change the same lines? Move them apart, or start the branch at that fix and say 'Needs: …'."
        ) from error


def _add_checkout(line: Line, modules: Path, tree: Path) -> None:
    """Lay the checkout's modules over the tree: own ones as in the series, or git sees it, and features alone."""
    for path in line.own_modules():
        (tree / path).unlink()
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(modules, tree / line.source, ignore=ignore, copy_function=shutil.copyfile, dirs_exist_ok=True)
    seen = git(tree, "status", "--porcelain", "--untracked-files=all", "--ignored").splitlines()
    feature = re.compile(rf"\?\? {line.source}/({'|'.join(line.features)})/.+\.py")
    wrong = [entry for entry in seen if not feature.fullmatch(entry)]
    first = {name: f"{line.source}/{name}/__init__.py" for name in line.features}
    wrong += [f"   no {file} for the feature {name!r}" for name, file in first.items() if f"?? {file}" not in seen]
    if wrong:
        raise PatchQueueError(
            "\n".join(["the checkout's modules are not those of the patches and of pyproject.toml, by git:", *wrong])
            + "\nM, D: an own module was edited; `python -m patchqueue refresh` writes it into the patches, git "
            "restores it. ??, !!: in no patch and no feature; commit it in the unpacked tree, refresh; or delete it."
        )
