"""The contributor's tree under build/: a branch for each fix, made from the release, and one on which all are stacked.

The branches are worked on with plain git, and `refresh` exports them; the stack is derived from them. Guarantee: work
that is not in the series is never overwritten, neither in the tree nor in the series on disk. For that the tree
remembers the series it was made from, in .git/patchqueue, and where each branch stood then, in refs/unpacked/.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from patchqueue.git import PatchQueueError, git
from patchqueue.series import FOLDERS, Fix, Line, promised
from patchqueue.tree import PRISTINE, STACK, apply_alone, apply_stack, start_tree, tree_id

EXPORT = (
    "--unified=1",  # enough for a strict place (-U0 lands anywhere), little of upstream's text
    "--full-index",  # whole blob names: what a fix alone is verified against, and what am -3 needs
    "--zero-commit",  # commit ids change with every unpack,
    "--no-signature",  # and so does git's version
    "--no-numbered",  # adding a patch must not rewrite the others' subjects
    "--no-stat",
    "--no-renames",  # a rename has no index line when nothing else changed
)

_TREE_COMMENT = "# The git tree of the release with all fixes: written by refresh, compared by every build.\n"


def unpack(line: Line) -> Path:
    """Make the tree from the series, the stack checked out; one made from this very series is kept, work included."""
    tree = line.scratch
    if tree.exists():
        if _made_from(tree) == line.digest:
            return tree
        work = _work(tree)
        if work:
            raise PatchQueueError(
                f"{tree} holds work which is not in the series ({work}), and the series changed since it was unpacked. "
                f"Save it (git format-patch), delete the tree, unpack again and apply it there (git am -3)."
            )
        shutil.rmtree(tree)
    fresh = tree.with_name(f"{tree.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    start_tree(line, fresh)
    fresh.rename(tree)
    faults = lay_out(line, tree)
    _remember(line, tree)
    if faults:
        raise PatchQueueError(
            "\n".join(faults) + f"\nThe branches of these in {tree} stand at their start: apply there what is to be "
            "(git switch, git am -3; CONTRIBUTING.md, 'A new release'), then refresh."
        )
    return tree


def lay_out(line: Line, tree: Path) -> list[str]:
    """Make the branches of a tree that holds the release; what does not apply. The stack only if each fix does."""
    faults = [said for fix in line.fixes for said in _fault(apply_alone, line, fix, tree)]
    return faults or _fault(apply_stack, line, tree)


def refresh(line: Line) -> list[Path]:
    """Write the branches back as the series, and the own modules of the stack back to the checkout.

    Own modules edited in the checkout are first folded into the commits that create them. Returns the files that
    changed on disk: none when there was nothing to write.
    """
    tree = unpack(line)
    _refuse(line, tree)
    _fold(tree, _edited_in_checkout(line, tree))
    with tempfile.TemporaryDirectory() as folder:
        fresh = replace(line, series=Path(folder))
        shutil.copyfile(line.pin, fresh.pin)
        for branch in _branches(tree):
            _follow(tree, branch)
            export(tree, Fix(fresh.series / branch))
        problems = [said for fix in fresh.fixes for said in empty(fix)] + scattered(fresh)
        if problems:
            raise PatchQueueError("\n".join(problems))
        try:
            apply_stack(fresh, tree)
        except PatchQueueError:
            git(tree, "checkout", "--quiet", STACK)
            raise
        new = {line.series / patch.relative_to(fresh.series): patch.read_bytes() for patch in fresh.patches}
        new |= {file: (tree / path).read_bytes() for path, file in fresh.own_files().items()}
    new[line.tree_id] = f"{_TREE_COMMENT}{tree_id(tree)}\n".encode()
    gone = {*line.patches, *line.own_files().values()} - set(new)
    changed = [file for file, data in new.items() if not file.is_file() or file.read_bytes() != data]
    _write({file: new[file] for file in changed}, gone)
    _remember(line, tree)
    return sorted([*changed, *gone])


def export(tree: Path, fix: Fix) -> None:
    """Write the commits of a branch, after the release or after the fix that it needs, as mails into its folder."""
    commits = f"{_needs(tree, fix.name) or PRISTINE}..{fix.name}"
    git(tree, "format-patch", *EXPORT, "--output-directory", str(fix.folder.resolve()), commits)


def empty(fix: Fix) -> list[str]:
    """What cannot be applied: a branch without a commit, a mail of a commit that changes nothing."""
    if not fix.patches:
        return [f"the branch {fix.name} holds no commit of its own: make one, or delete the branch."]
    return [
        f"{fix.name}/{patch.name}: its commit changes no file, so there is nothing to apply. Drop it "
        f"(git rebase --force-rebase --no-keep-empty {PRISTINE}), or put a change into it, then refresh."
        for patch in fix.patches
        if b"\ndiff --git " not in patch.read_bytes()
    ]


def scattered(line: Line) -> list[str]:
    """Breaches of the rule that one patch creates an own module and no other touches it."""
    created: dict[str, Path] = {}
    faults = []
    for patch in line.patches:
        for path, old, _ in sorted(promised(patch)):
            first = created.setdefault(path, patch) if path in created or not old.strip("0") else patch
            if first != patch:
                where = first.relative_to(line.series)
                faults.append(f"{patch.relative_to(line.series)}: touches {path}, which {where} creates")
    return faults


def link_farm(line: Line) -> None:
    """Make build/editable/ a package of links: own modules and features to the checkout, the rest to the tree."""
    tree = unpack(line)
    farm = line.root / "build" / "editable"
    shutil.rmtree(farm, ignore_errors=True)
    targets = {path: tree / path for path in git(tree, "ls-files", "--", line.source).splitlines()}
    targets |= line.own_files() | {f"{line.source}/{name}": line.root / line.source / name for name in line.features}
    for path, target in targets.items():
        if not target.exists():
            raise PatchQueueError(f"{target} is missing: restore it with git, then install again.")
        (farm / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            (farm / path).symlink_to(target.resolve())
        except OSError as error:
            raise PatchQueueError(f"cannot make links: {error}. On Windows, turn on Developer Mode.") from error


def _fault(step: Callable[..., None], *arguments: object) -> list[str]:
    try:
        step(*arguments)
    except PatchQueueError as error:
        return [str(error)]
    return []


def _branches(tree: Path) -> list[str]:
    """The branches of fixes, in order."""
    return git(tree, "for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{FOLDERS}").split()


def _needs(tree: Path, branch: str) -> str:
    """The fix on which a branch stands, by the trailer of its last commit."""
    return git(tree, "log", "-1", "--format=%(trailers:key=Needs,valueonly)", branch).strip()


def _follow(tree: Path, branch: str) -> None:
    """Rebase a branch that needs another fix onto that as it is now."""
    needs = _needs(tree, branch)
    if needs:
        before = git(tree, "rev-parse", "--revs-only", f"refs/unpacked/{needs}").strip() or needs
        _rebase(tree, branch, "--onto", needs, before, branch)


def _made_from(tree: Path) -> str:
    """The digest of the series that the tree was made from, or last exported as."""
    try:
        return (tree / ".git" / "patchqueue").read_text()
    except OSError as error:
        raise PatchQueueError(f"{tree} was not made by `python -m patchqueue unpack`: move it away first.") from error


def _remember(line: Line, tree: Path) -> None:
    (tree / ".git" / "patchqueue").write_text(line.digest)
    git(tree, "fetch", "--quiet", "--prune", ".", "+refs/heads/*:refs/unpacked/*")


def _work(tree: Path) -> str:
    """What of the tree is not in the series: a stopped am or rebase, files, branches."""
    # A stopped am or rebase leaves a clean tree with fewer commits than the series has patches.
    if any((tree / ".git" / name).exists() for name in ("rebase-apply", "rebase-merge")):
        return "an unfinished am or rebase"
    if git(tree, "status", "--porcelain"):
        return "uncommitted changes"
    heads, unpacked = (
        set(git(tree, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", f"refs/{kind}").splitlines())
        for kind in ("heads", "unpacked")
    )
    return ", ".join(sorted(head.split()[0] for head in heads - unpacked))


def _refuse(line: Line, tree: Path) -> None:
    """Only clean, linear branches may replace the series, all of it."""
    work = _work(tree)
    if " " in work and "," not in work:
        raise PatchQueueError(f"{tree} has {work}: finish, commit or discard that, then refresh.")
    if STACK in work.split(", "):
        raise PatchQueueError(
            f"{tree} has commits on {STACK}, which is made from the branches of the fixes. Move each to its fix "
            f"(git switch NN-name; git cherry-pick …), then git branch --force {STACK} refs/unpacked/{STACK}."
        )
    if git(tree, "rev-list", "--merges", "--branches", f"^{PRISTINE}"):
        raise PatchQueueError(f"{tree} holds merges, a series cannot: rebase onto {PRISTINE}, then refresh.")
    lost = sorted({fix.name for fix in line.fixes} - set(_branches(tree)))
    if lost:
        raise PatchQueueError(
            f"{tree} has no branch {', '.join(lost)}: to drop a fix, delete its folder in {line.series} and unpack; "
            f"to get the branch back, git branch NAME refs/unpacked/NAME."
        )


def _edited_in_checkout(line: Line, tree: Path) -> dict[str, Fix]:
    """Own modules that were edited in the checkout since the last export; edits on both sides are an error."""
    edited = {}
    exported_as, files = line.own_modules(), line.own_files()
    for fix in line.fixes:
        for path in files.keys() & {path for patch in fix.patches for path, _, _ in promised(patch)}:
            if not files[path].is_file():
                continue  # written back below
            here = git(tree, "hash-object", "--no-filters", str(files[path].resolve())).strip()
            there = git(tree, "rev-parse", "--revs-only", f"{fix.name}:{path}").strip()  # empty: a commit removed it
            if here in (exported_as[path], there):
                continue
            if there != exported_as[path]:
                raise PatchQueueError(
                    f"{path} was edited both in {files[path]} and on the branch {fix.name}: make them equal, then refresh."
                )
            edited[path] = fix
    return {path: (fix.name, files[path]) for path, fix in edited.items()}


def _fold(tree: Path, edited: dict[str, tuple[str, Path]]) -> None:
    """Put each edited own module into the commit that creates it."""
    for path, (branch, file) in edited.items():
        before = git(tree, "rev-parse", branch).strip()
        git(tree, "checkout", "--quiet", branch)
        creator = git(tree, "log", "--diff-filter=A", "--format=%H", f"{PRISTINE}..HEAD", "--", path).split()[-1]
        shutil.copyfile(file, tree / path)
        git(tree, "commit", "--quiet", f"--fixup={creator}", "--", path)
        try:
            _rebase(tree, branch, "--interactive", "--autosquash", f"{creator}~1")
        except PatchQueueError:
            git(tree, "reset", "--quiet", "--hard", before)
            raise


def _rebase(tree: Path, branch: str, *arguments: str) -> None:
    """Rebase a branch, or leave it as it was."""
    try:
        git(tree, "rebase", "--quiet", *arguments)
    except PatchQueueError as error:
        with suppress(PatchQueueError):
            git(tree, "rebase", "--abort")
        raise PatchQueueError(
            f"git could not rebase {branch} in {tree}; do it by hand, then refresh. {error}"
        ) from error


def _write(new: dict[Path, bytes], gone: set[Path]) -> None:
    """Replace files, each whole or not at all, after everything has been computed and written beside them."""
    beside = {file: file.with_name(f"{file.name}.new") for file in new}
    for file, data in new.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        beside[file].write_bytes(data)
    for file, temporary in beside.items():
        temporary.replace(file)
    for file in gone:
        file.unlink(missing_ok=True)
