"""Fixes as a branch in a clone of upstream's repository: `python -m patchqueue branch`.

Guarantee: the branch is made whole, or the clone is as it was, even if the command is killed: the commits are made in
a temporary clone, of which the clone knows nothing, and fetched after the last one. The work tree is never touched.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from patchqueue.git import PatchQueueError, git, run
from patchqueue.scratch import unpack
from patchqueue.series import Line, letter, mails, needs, paths
from patchqueue.tree import PRISTINE

_OURS = re.compile(r"^(?:Forwarded|Drop-When|Needs): .*\n(?: .*\n)*", re.MULTILINE)
"""Trailers for this queue alone."""


def branch(line: Line, fix: Path | None, clone: Path, onto: str = "HEAD") -> str:
    """Make a branch of one fix, or of all, on a commit of `clone`; what was done, and the text for upstream."""
    if fix and "not for upstream" in letter(fix):
        raise PatchQueueError(f"{fix.name} is not for upstream, as its message says: name another fix.")
    wanted = line.chain(fix) if fix else line.fixes
    name = fix.name.partition("-")[2] if fix else "all-fixes"
    start = _start(line, clone, onto, name)
    who = _committer(clone)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        # Templates may bring hooks. What the clone has stored is not copied.
        git(clone, "clone", "--quiet", "--shared", "--no-checkout", "--template=", str(clone.resolve()), str(tree))
        # Only what a patch may touch: a clone may lack other files, and they may be large.
        git(tree, "sparse-checkout", "set", line.source, "tests", "docs")
        git(tree, "checkout", "--quiet", "--detach", start)
        release = (f"{PRISTINE}:refs/release/{PRISTINE}", "refs/unpacked/*:refs/release/*")
        git(tree, "fetch", "--quiet", "--no-tags", str(unpack(line)), *release)
        said = [f"  {each.name}: {_commit(line, each, tree, who)}" for each in wanted]
        if git(tree, "rev-parse", "HEAD").strip() == start:
            return "\n".join([f"{clone} has at {onto} all of it: no branch was made.", *said])
        git(clone, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(tree), f"HEAD:refs/heads/{name}")
    said.append(f"Look at it: git -C {clone} log --patch {start[:12]}..{name}")
    said.append(f"What is left: git push <your fork> {name}")
    if fix:
        title, _, body = (fix / "PULL_REQUEST.md").read_text("utf-8").partition("\n")
        said += ["", f"Title: {title.removeprefix('# ')}", "", one_line_each(body.strip())]
    return "\n".join([f"{clone} has the branch {name} on {onto}, {start[:12]}:", *said])


def for_upstream(message: str) -> str:
    """A commit message as upstream is to see it: without our trailers."""
    body, gap, trailers = message.rstrip("\n").rpartition("\n\n")
    return body + gap + _OURS.sub("", trailers + "\n")


def one_line_each(text: str) -> str:
    """A text with each paragraph and item on one line: a pull request shows the ends of lines as breaks."""
    own_lines = r"^```.*?^```$\n?|^(?:#+ |\|)[^\n]*\n"  # code, headings, tables
    within = r"(?<=\S)\n *(?=\S)(?![-*] |\d+\. |#+ |\||```|\*\*[A-Z])"
    return re.sub(f"(?ms)({own_lines})|{within}", lambda found: found[1] or " ", text)


def _start(line: Line, clone: Path, onto: str, name: str) -> str:
    """The commit to start from, in a clone of the right project that has no such branch yet."""
    if not (clone / ".git").exists():
        raise PatchQueueError(f"{clone} is no git clone: name the root of a clone of {line.upstream[0]}'s repository.")
    start = git(clone, "rev-parse", "--revs-only", f"{onto}^{{commit}}").strip()
    if not start:
        raise PatchQueueError(f"{clone} has no commit {onto}: fetch it (git fetch --tags), or name another.")
    if not git(clone, "ls-tree", start, f"{line.source}/__init__.py"):
        raise PatchQueueError(f"{clone} is no clone of {line.upstream[0]}: {onto} has no {line.source}/__init__.py.")
    if git(clone, "rev-parse", "--revs-only", f"refs/heads/{name}"):
        raise PatchQueueError(f"{clone} has a branch {name} already: rename or delete it (git branch -D {name}).")
    return start


def _committer(clone: Path) -> dict[str, str]:
    """Who commits in `clone`, by its owner's settings, and when, for the environment of git elsewhere."""
    done = run(["git", "var", "GIT_COMMITTER_IDENT"], clone, dict(os.environ))
    ident = re.fullmatch(r"(.+) <(.+)> (\d+ [+-]\d+)\n", done.stdout)
    if ident is None:
        raise PatchQueueError(
            f"git does not know who commits in {clone}: git -C {clone} config user.name 'Your Name', and user.email."
        )
    return dict(zip(("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "GIT_COMMITTER_DATE"), ident.groups(), strict=True))


def _commit(line: Line, fix: Path, tree: Path, who: dict[str, str]) -> str:
    """Commit a fix, with its changes to tests that the release does not hold; how that went.

    It is merged three ways: a patch is applied wherever its context stands, be that after its own lines.
    """
    before, patches = git(tree, "rev-parse", "HEAD"), mails(fix)
    made_from = f"^refs/release/{needs(fix) or PRISTINE}"
    commits = git(tree, "rev-list", "--reverse", f"refs/release/{fix.name}", made_from).split()
    if len(commits) != len(patches):
        raise PatchQueueError(f"{fix.name} does not apply to its release: unpack, make its branch, and refresh.")
    for patch, commit in zip(patches, commits, strict=True):
        if _is_there(tree, patch):
            continue
        _try(line, fix, tree, "cherry-pick", "--no-commit", commit)
        if git(tree, "diff", "--cached", "--name-only"):
            author, date, message = git(tree, "log", "-1", "--format=%an <%ae>%n%aI%n%B", commit).split("\n", 2)
            if author.endswith(".example>"):  # to whom nobody can write
                author = "{GIT_COMMITTER_NAME} <{GIT_COMMITTER_EMAIL}>".format(**who)
            told = (f"--author={author}", f"--date={date}", f"--message={for_upstream(message)}")
            git(tree, "commit", "--quiet", *told, **who)
    made = git(tree, "diff", "--name-only", before.strip(), "HEAD").split("\n")
    if git(tree, "rev-parse", "HEAD") == before:
        return "is there already, left out"
    for diff in sorted(fix.glob("*.diff")):
        _try(line, fix, tree, "apply", "--3way", str(diff.resolve()))
        git(tree, "commit", "--quiet", "--amend", "--all", "--no-edit", **who)
    there = sorted(paths(fix).difference(made))
    return f"committed; there already: {', '.join(there)}" if there else "committed"


def _is_there(tree: Path, patch: Path) -> bool:
    """Whether a patch can be taken back: only the content counts, upstream may have squashed or reworded commits."""
    try:
        git(tree, "apply", "--check", "--reverse", str(patch.resolve()))
    except PatchQueueError:
        return False
    return True


def _try(line: Line, fix: Path, tree: Path, *command: str) -> None:
    """Run git on a part of a fix; where that conflicts, name the files, and say how to resolve it by hand."""
    try:
        git(tree, *command)
    except PatchQueueError as error:
        names = git(tree, "diff", "--name-only", "--diff-filter=U").split()
        if not names:  # an object that the clone lacks, say
            said = str(error).partition("\n")[2].partition("\n")[0]
            raise PatchQueueError(f"git could not merge {fix.name}; nothing was changed. It says:\n{said}") from error
        diffs = "".join(f"; git apply --3way {diff.resolve()}" for diff in sorted(fix.glob("*.diff")))
        raise PatchQueueError(
            f"{fix.name} does not apply to {', '.join(names)}: made for {'=='.join(line.upstream)}, it finds other "
            f"lines. Nothing was changed. By hand, in the clone (leave Forwarded and Drop-When out):\n"
            f"  git switch --create {fix.name.partition('-')[2]}; git fetch {line.scratch} {fix.name}; "
            f"git cherry-pick --edit FETCH_HEAD{diffs}\n"
            f"The text is {fix / 'PULL_REQUEST.md'}. Of a whole series, the others can go one by one."
        ) from error
