"""A series laid onto a checkout of the upstream repository, as commits on its current branch.

Guarantee: all patches become commits, or the checkout is as it was, even if the command is killed. The commits are
made in a temporary clone, of which the checkout knows nothing; the branch moves forward to them when the last one has
applied.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from patchqueue.rules import for_upstream
from patchqueue.series import Line, PatchQueueError, git, promised, run


def lay(line: Line, checkout: Path) -> str:
    """Commit the patches that `checkout` lacks; what was done, and how to undo it."""
    start = _clean_head(checkout)
    committer = _committer(checkout)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        _clone(checkout, start, tree)
        missing = _missing(line, tree)
        git(tree, "reset", "--quiet", "--hard", start)
        for patch in missing:
            _commit(line, patch, tree, committer)
        end = git(tree, "rev-parse", "HEAD").strip()
        if end == start:
            return f"{checkout} holds the whole series for {'=='.join(line.upstream)} already: nothing to do."
        _move_forward(checkout, tree, end)
    return _report(line, checkout, start, end)


def _clean_head(checkout: Path) -> str:
    """The commit checked out; a folder that is no clean checkout is an error."""
    if not (checkout / ".git").exists():
        raise PatchQueueError(f"{checkout} is no git checkout: name the root of a clone of the upstream repository.")
    dirty = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    if dirty:
        raise PatchQueueError(f"{checkout} has uncommitted changes; commit or stash them first:\n{dirty.rstrip()}")
    head = _git(checkout, "rev-parse", "--revs-only", "HEAD").strip()
    if not head:
        raise PatchQueueError(f"{checkout} has no commit checked out, so nothing to patch: check out a release.")
    return head


def _committer(checkout: Path) -> dict[str, str]:
    """Who commits in `checkout`, and when, for the environment of git elsewhere."""
    try:
        ident = _git(checkout, "var", "GIT_COMMITTER_IDENT").strip()
    except PatchQueueError as error:
        raise PatchQueueError(
            f"git does not know who commits in {checkout}; nothing was changed. Tell it:\n"
            f"  git -C {checkout} config user.name 'Your Name'\n  git -C {checkout} config user.email you@example.org"
        ) from error
    name, email, date = re.fullmatch(r"(.*) <(.*)> (\d+ [+-]\d+)", ident).groups()  # type: ignore[union-attr]
    return {"GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": email, "GIT_COMMITTER_DATE": date}


def _clone(checkout: Path, start: str, tree: Path) -> None:
    """Make `tree` a clone of `checkout` at `start`, without copying what git has stored."""
    # Templates may bring hooks.
    _git(checkout, "clone", "--quiet", "--shared", "--no-checkout", "--template=", str(checkout), str(tree))
    try:
        git(tree, "reset", "--quiet", "--hard", start)
    except PatchQueueError as error:
        if "unable to read" not in str(error):
            raise
        raise PatchQueueError(
            f"{checkout} is a partial clone that lacks files of {start[:12]}. Nothing was changed. Fetch them "
            f"(git sparse-checkout disable), or use a whole clone."
        ) from error


def _missing(line: Line, tree: Path) -> list[Path]:
    """The patches that `tree` lacks: those that cannot be taken back from it, tried last to first.

    Only the content is asked, since upstream may have squashed or reworded the commits.
    """
    missing = []
    for patch in reversed(line.patches):
        try:
            git(tree, "apply", "--reverse", "--index", str(patch.resolve()))
        except PatchQueueError:
            missing.append(patch)
    return missing[::-1]


def _commit(line: Line, patch: Path, tree: Path, committer: dict[str, str]) -> None:
    """Commit one patch, under the message that upstream is to see; a conflict is named."""
    mail = tree.parent / patch.name
    mail.write_bytes(for_upstream(patch.read_bytes()))
    try:
        # A checkout that has moved on holds the blobs that the patch names, so that git can merge three ways.
        git(tree, "am", "--3way", "--keep-cr", str(mail), **committer)
    except PatchQueueError as error:
        names = _in_conflict(patch, tree)
        what = f"{patch.name} does not apply to {', '.join(names)}" if names else f"{patch.name} does not apply"
        raise PatchQueueError(
            f"{what}. Nothing was changed. The series is made for {'=='.join(line.upstream)}: check out that release, "
            "or, if the patch is not there in another form, resolve it by hand, this one and those after it:\n"
            f"  git am --3way {patch.resolve()}" + ("" if names else f"\n{error}")
        ) from error


def _in_conflict(patch: Path, tree: Path) -> list[str]:
    """The files that stopped `git am` in `tree`; none if something else did."""
    unmerged = git(tree, "diff", "--name-only", "--diff-filter=U", "-z").split("\0")[:-1]
    if unmerged:
        return unmerged
    try:  # am gave up before it merged, and named the first file alone
        git(tree, "apply", "--check", "--index", str(patch.resolve()))
    except PatchQueueError as error:
        return sorted(path for path, _, _ in promised(patch) if f"error: {path}: " in str(error))
    return []


def _move_forward(checkout: Path, tree: Path, end: str) -> None:
    """Bring the commits of `tree` up to `end` into the checkout's branch and files."""
    _git(checkout, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(tree), "HEAD")
    try:
        _git(checkout, "merge", "--quiet", "--ff-only", "--no-overwrite-ignore", end)
    except PatchQueueError as error:
        raise PatchQueueError(
            f"all patches apply, but something in {checkout} is in their way. Nothing was changed. Move it away and "
            f"lay again.\n{error}"
        ) from error


def _report(line: Line, checkout: Path, start: str, end: str) -> str:
    """The commits made, and what their owner may want to do next."""
    branch = _git(checkout, "branch", "--show-current").strip() or "a detached HEAD"
    made = _git(checkout, "log", "--reverse", "--format=  %h %s", f"{start}..{end}").splitlines()
    authors = sorted(set(_git(checkout, "log", "--format=%an <%ae>", f"{start}..{end}").splitlines()))
    there = len(line.patches) - len(made)
    text = line.series / "PULL_REQUEST.md"
    return "\n".join(
        [
            f"laid {'=='.join(line.upstream)} onto {branch} of {checkout}, which was at {start[:12]}: "
            f"{len(made)} of {len(line.patches)} patches{', the rest is there already' if there else ''}",
            *made,
            f"To undo: git reset --keep {start[:12]}",
            f"To become their author, now {', '.join(authors)}: "
            f"git rebase --exec 'git commit --amend --no-edit --reset-author' {start[:12]}",
            *([f"The text for a pull request: {text}"] if text.is_file() else []),
        ]
    )


def _git(folder: Path, *arguments: str) -> str:
    """Run git in the checkout as its owner has set it up."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    done = run(["git", *arguments], folder, env)
    if done.returncode != 0:
        raise PatchQueueError(
            f"git {' '.join(arguments[:2])} failed in {folder}:\n{(done.stdout + done.stderr).rstrip()}"
        )
    return done.stdout
