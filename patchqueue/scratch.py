"""The contributor's tree under build/: a branch for each fix, made from the release, and one on which all are stacked.

The branches are worked on with plain git, and `refresh` exports them; the stack is made from them. Guarantee: work
that is not in the series is never overwritten, neither in the tree nor in the series on disk. For that the tree
remembers the series it was made from, in .git/patchqueue, and where each branch stood then, in refs/unpacked/.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from patchqueue.git import PatchQueueError, git
from patchqueue.series import FOLDERS, Line, mails, paths
from patchqueue.tree import PRISTINE, STACK, apply_alone, apply_stack, start_tree, tree_id

EXPORT = (
    "--full-index",  # whole blob names: what a fix alone is verified against, and what am -3 needs
    "--zero-commit",  # commit ids change with every unpack,
    "--no-signature",  # and so does git's version
    "--no-numbered",  # adding a patch must not rewrite the others' subjects
    "--no-stat",
    "--no-renames",  # a rename has no index line when nothing else changed
)
_COMMENT = "# The git tree of the release with all fixes: written by refresh, compared by every build.\n"


def unpack(line: Line) -> Path:
    """Make the tree from the series, the stack checked out; one made from this very series is kept, work included."""
    tree, made_from = line.scratch, line.scratch / ".git" / "patchqueue"
    if made_from.is_file() and made_from.read_text() == line.digest:
        return tree
    if tree.exists() and (not made_from.is_file() or work(line)):
        raise PatchQueueError(
            f"{tree} holds work which is not in the series, and was not unpacked from the series as it is now. Save "
            f"it (git format-patch), delete the tree, unpack; on its branch git reset --hard pristine, git am -3."
        )
    fresh = tree.with_name(f"{tree.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    start_tree(line, fresh)
    faults = lay_out(line, fresh)
    _remember(line, fresh)
    shutil.rmtree(tree, ignore_errors=True)
    fresh.rename(tree)
    if faults:
        start = f"{tree} has the branch of what does not apply at its start: CONTRIBUTING.md, 'Move to a new release'."
        raise PatchQueueError("\n".join([*faults, start]))
    return tree


def lay_out(line: Line, tree: Path) -> list[str]:
    """Make the branches of a tree that holds the release, the stack last; what does not apply."""
    faults: list[str] = []
    for step in (*(partial(apply_alone, fix) for fix in line.fixes), partial(apply_stack, line)):
        try:
            step(tree)
        except PatchQueueError as error:
            if str(error).split()[0] not in " ".join(faults):  # said already, of the patch alone
                faults.append(str(error))
    return faults


def refresh(line: Line) -> list[Path]:
    """Write the branches back as the series, and the own modules to the checkout; the files that changed on disk.

    Own modules edited in the checkout are first put into the branch that creates them.
    """
    tree = unpack(line)
    _refuse(tree)
    _take_over(line, tree)
    with tempfile.TemporaryDirectory() as folder:
        fresh = replace(line, series=Path(folder))
        shutil.copyfile(line.pin, fresh.pin)
        for branch in git(tree, "for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{FOLDERS}").split():
            _follow(tree, branch)
            export(tree, branch, fresh.series / branch)
        lost = sorted({fix.name for fix in line.fixes} - {fix.name for fix in fresh.fixes if mails(fix)})
        if lost:
            raise PatchQueueError(
                f"{tree} has no commit on {', '.join(lost)}: git am -3 its patch there, or git branch --force NAME "
                f"refs/unpacked/NAME. A broken patch: restore it with git, and unpack. To drop a fix, delete its "
                f"folder in {line.series} and its own module, and refresh."
            )
        apply_stack(fresh, tree)
        new = {line.series / patch.relative_to(fresh.series): patch.read_bytes() for patch in fresh.patches}
        new |= {file: (tree / path).read_bytes() for path, file in fresh.own_files().items()}
    new[line.tree_id] = f"{_COMMENT}{tree_id(tree)}\n".encode()
    gone = {*line.patches, *line.own_files().values()} - set(new)
    changed = {file: data for file, data in new.items() if not file.is_file() or file.read_bytes() != data}
    for file, data in changed.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    for file in gone:
        file.unlink(missing_ok=True)
    _remember(line, tree)
    return sorted({*changed, *gone})


def export(tree: Path, branch: str, folder: Path) -> None:
    """Write the commits of a branch, after the release or after the fix that it needs, as mails.

    With one line of context, which is little of upstream's text, or as many as it takes for each hunk to fit in one
    place only: among the lines of other fixes git takes the place that is nearest.
    """
    start = _needs(tree, branch) or PRISTINE
    for width in range(1, 10):
        command = ("format-patch", *EXPORT, f"--unified={width}", "--output-directory", str(folder.resolve()))
        names = git(tree, *command, f"{start}..{branch}").splitlines()
        if all(_one_place(tree, Path(name)) for name in names):
            return
    raise PatchQueueError(f"{branch} changes lines that stand elsewhere in the same file, too, with 9 around them.")


def link_farm(line: Line) -> None:
    """Make build/editable/ a package of links: own modules and features to the checkout, the rest to the tree."""
    tree = unpack(line)
    farm = line.root / "build" / "editable"
    shutil.rmtree(farm, ignore_errors=True)
    targets = {path: tree / path for path in git(tree, "ls-files", "--", line.source).splitlines()}
    targets |= line.own_files() | {f"{line.source}/{name}": line.root / line.source / name for name in line.features}
    for path, target in targets.items():
        (farm / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            (farm / path).symlink_to(target.resolve())
        except OSError as error:
            raise PatchQueueError(f"cannot make links: {error}. On Windows, turn on Developer Mode.") from error


def _one_place(tree: Path, patch: Path) -> bool:
    """Whether what each hunk of a mail removes and keeps stands once in the file that it changes."""
    sections = re.findall(r"^index (\w+)\..*\n--- .*\n.*\n((?:[@ +\\-].*\n)*)", patch.read_text("utf-8"), re.MULTILINE)
    for before, hunks in sections:
        found = "\n" + (git(tree, "cat-file", "blob", before) if before.strip("0") else "")
        for hunk in re.split(r"^@@ .*\n", hunks, flags=re.MULTILINE)[1:]:
            old = "\n" + "".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in " -")
            if found.find(old, found.find(old) + 1) >= 0:
                return False
    return True


def _needs(tree: Path, branch: str) -> str:
    """The fix on which a branch stands, by the trailer of its last commit."""
    return git(tree, "log", "-1", "--format=%(trailers:key=Needs,valueonly)", branch).strip()


def _follow(tree: Path, branch: str) -> None:
    """Rebase a branch that needs another fix onto that as it is now."""
    needs = _needs(tree, branch)
    if needs:
        before = git(tree, "rev-parse", "--revs-only", f"refs/unpacked/{needs}").strip() or needs
        try:
            git(tree, "rebase", "--quiet", "--onto", needs, before, branch)
        except PatchQueueError:
            with suppress(PatchQueueError):
                git(tree, "rebase", "--abort")
            raise


def _remember(line: Line, tree: Path) -> None:
    (tree / ".git" / "patchqueue").write_text(line.digest)
    git(tree, "fetch", "--quiet", "--prune", ".", "+refs/heads/*:refs/unpacked/*")


def _unfinished(tree: Path) -> str:
    """What has not become a commit; a stopped am or rebase leaves a clean tree, but fewer commits than patches."""
    stopped = any((tree / ".git").glob("rebase-*"))
    return "an unfinished am or rebase" if stopped else git(tree, "status", "--porcelain").rstrip()


def work(line: Line) -> str:
    """What of the tree is not in the series, or not any more: changes, commits and stashes."""
    if not (line.scratch / ".git" / "patchqueue").is_file():
        return ""
    return _unfinished(line.scratch) or git(
        line.scratch, "rev-list", "HEAD", "--branches", "--glob=refs/stash*", "--not", "--glob=refs/unpacked/*"
    )


def _refuse(tree: Path) -> None:
    """Only clean, linear branches may replace the series, and no commit may lie beside them."""
    unfinished = _unfinished(tree)
    if unfinished:
        raise PatchQueueError(f"{tree} has uncommitted work; commit or discard it, then refresh:\n{unfinished}")
    fixes = ("--not", "--glob=refs/unpacked/*", f"--branches={FOLDERS}")
    if beside := sorted({*git(tree, "log", "--format=%S", "--branches", "HEAD", *fixes).split()}):
        raise PatchQueueError(
            f"{tree} has commits on {', '.join(beside)}, of no fix. Put each into its fix's: git switch that branch, "
            f"git cherry-pick --no-commit, git commit --amend. Then git branch -D a branch of your own, git branch "
            f"--force {STACK} refs/unpacked/{STACK}, refresh."
        )
    if git(tree, "rev-list", "--merges", "--branches", f"^{PRISTINE}"):
        raise PatchQueueError(f"{tree} holds merges, a series cannot: rebase onto {PRISTINE}, then refresh.")


def _take_over(line: Line, tree: Path) -> None:
    """Put own modules that were edited in the checkout into the commit that creates them, the last of its branch."""
    for path, file in line.own_files().items():
        *others, fix = (each.name for each in line.fixes if path in paths(each))
        refs = (f"refs/unpacked/{fix}", fix)
        unpacked, now = (git(tree, "rev-parse", "--revs-only", f"{ref}:{path}") for ref in refs)
        # The fix did not apply, or the module is deleted, or not edited.
        if not unpacked or not file.is_file() or git(tree, "hash-object", "--no-filters", str(file)) == unpacked:
            continue
        if others or now != unpacked:
            raise PatchQueueError(
                f"{path} was edited in {file}, but is of {' and '.join([*others, fix])}, or has changed there, too: "
                f"restore {file}, make the edit in {tree}, on the branch whose line it is, and refresh."
            )
        git(tree, "checkout", "--quiet", fix)
        shutil.copyfile(file, tree / path)
        git(tree, "commit", "--quiet", "--amend", "--no-edit", "--", path)
