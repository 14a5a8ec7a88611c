"""A series laid onto a checkout of the upstream repository, as commits on its current branch.

Guarantee: all patches become commits, or the checkout is as it was. The commits are made in a work tree of their own,
beside the checkout, and the branch is moved forward to them only when the last one has applied.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from patchqueue.series import Line, PatchQueueError, promised, run


def lay(line: Line, checkout: Path) -> str:
    """Commit the series in `checkout`; what was done, and how to undo it."""
    start = _clean_head(checkout)
    branch = _git(checkout, "branch", "--show-current").strip() or "a detached HEAD"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        _git(checkout, "worktree", "add", "--quiet", "--detach", str(tree), start)
        try:
            end = _commit_all(line, tree)
        finally:
            _git(checkout, "worktree", "remove", "--force", str(tree))
    if end == start:
        return (
            f"{checkout} holds all {len(line.patches)} patches of {'=='.join(line.upstream)} already: nothing to do."
        )
    _git(checkout, "merge", "--quiet", "--ff-only", end)
    made = _git(checkout, "log", "--reverse", "--format=  %h %s", f"{start}..{end}").splitlines()
    text = line.series / "PULL_REQUEST.md"
    return "\n".join(
        [
            f"laid {'=='.join(line.upstream)} onto {branch} of {checkout}, which was at {start[:12]}: "
            f"{len(made)} commits for {len(line.patches)} patches (one that is there already makes none)",
            *made,
            f"To undo: git reset --keep {start[:12]}",
            *([f"The text for a pull request: {text}"] if text.is_file() else []),
        ]
    )


def _clean_head(checkout: Path) -> str:
    """The commit checked out; a folder that is no clean checkout is an error."""
    if not (checkout / ".git").exists():
        raise PatchQueueError(f"{checkout} is no git checkout: name the root of a clone of the upstream repository.")
    dirty = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    if dirty:
        raise PatchQueueError(f"{checkout} has uncommitted changes; commit or stash them first:\n{dirty.rstrip()}")
    return _git(checkout, "rev-parse", "HEAD").strip()


def _commit_all(line: Line, tree: Path) -> str:
    """Apply the patches one by one, so that the one that fails can be named; the last commit."""
    for patch in line.patches:
        try:
            # A checkout that has moved on holds the blobs that the patch names, so that git can merge three ways.
            _git(tree, "am", "--quiet", "--3way", "--keep-cr", str(patch.resolve()))
        except PatchQueueError as error:
            _git(tree, "am", "--abort")
            said = str(error)
            failed = re.findall(r"(?:Merge conflict in |patch failed: |error: )([^\s:]+[./][^\s:]+)", said)
            names = list(dict.fromkeys(failed)) or sorted(path for path, _, _ in promised(patch))
            raise PatchQueueError(
                f"{patch.name} does not apply to {', '.join(names)}. Nothing was changed. The series is made for "
                f"{'=='.join(line.upstream)}: check out that release, or rebase by hand.\n{said}"
            ) from error
    return _git(tree, "rev-parse", "HEAD").strip()


def _git(folder: Path, *arguments: str) -> str:
    """Run git as the checkout's owner has set it up, whose name the commits carry as committer."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    done = run(["git", *arguments], folder, env)
    if done.returncode != 0:
        raise PatchQueueError(
            f"git {' '.join(arguments[:2])} failed in {folder}:\n{(done.stdout + done.stderr).rstrip()}"
        )
    return done.stdout
