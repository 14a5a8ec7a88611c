"""The contributor's tree: unpacked under build/, worked on with git, exported back into the series.

Guarantee: work that is not in the series is never overwritten, neither in the unpacked tree nor in the series on disk.
For that the tree remembers, in .git/patchqueue, the series it was made from and the commit that was last exported.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from patchqueue.series import PACKAGE, PRISTINE, Line, PatchQueueError, apply_series, git, promised, start_tree

EXPORT = (
    "--unified=1",  # enough for a strict place (-U0 lands anywhere), little of upstream's text
    "--full-index",  # whole blob names: what the build verifies against, and what am -3 needs
    "--zero-commit",  # commit ids change with every unpack,
    "--no-signature",  # and so does git's version
    "--no-numbered",  # adding a patch must not rewrite the others' subjects
    "--no-stat",
    "--no-renames",  # a rename has no index line when nothing else changed
)


def unpack(line: Line) -> Path:
    """Make the unpacked tree from the series; one made from this very series is kept, with the work in it."""
    tree = line.scratch
    if tree.exists():
        made_from, _ = _state(tree)
        if made_from == line.digest and not _unfinished(tree):
            return tree
        if _unexported(tree):
            raise PatchQueueError(
                f"{tree} holds work which is not in the series, and the series changed since it was unpacked, or is "
                f"not applied to its end. Finish the am, or save the work (git format-patch) and delete the tree."
            )
        shutil.rmtree(tree)
    fresh = tree.with_name(f"{tree.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    start_tree(line, fresh)
    fresh.rename(tree)
    _remember(line, tree)
    try:
        apply_series(line, tree)
    except PatchQueueError as error:
        raise PatchQueueError(
            f"{error}\n{tree} stopped there. CONTRIBUTING.md, 'A line for an older release', says how git merges what "
            "does not apply: git am --abort, git fetch, git am -3. Then refresh."
        ) from error
    _remember(line, tree)
    return tree


def refresh(line: Line) -> list[Path]:
    """Write the unpacked tree's commits back as the series, and its own modules back to the checkout.

    Own modules edited in the checkout are first folded into the commits that create them. Returns the files that
    changed on disk: none when there was nothing to write.
    """
    tree = line.scratch
    _refuse_unfinished(line, tree)
    _fold(tree, _edited_in_checkout(line, tree))
    with tempfile.TemporaryDirectory() as folder:
        exported = export(tree, Path(folder))
        problems = empty(exported) + scattered(exported)
        problems += [] if exported else [f"{tree} holds no commit after {PRISTINE} to export."]
        if problems:
            raise PatchQueueError("\n".join(problems))
        new = {line.series / patch.name: patch.read_bytes() for patch in exported}
        own = {path for patch in exported for path, old, _ in promised(patch) if _is_own(path, old)}
    if line.modules is not None:
        new |= {line.own_file(path): (tree / path).read_bytes() for path in own}
    gone = {*line.patches, *line.own_files().values()} - set(new)
    changed = [file for file, data in new.items() if not file.is_file() or file.read_bytes() != data]
    _write({file: new[file] for file in changed}, gone)
    _remember(line, tree)
    return sorted([*changed, *gone])


def export(tree: Path, folder: Path) -> list[Path]:
    """The commits after the release, as mails."""
    git(tree, "format-patch", *EXPORT, "--output-directory", str(folder.resolve()), f"{PRISTINE}..HEAD")
    return sorted(folder.glob("*.patch"))


def empty(patches: list[Path]) -> list[str]:
    """Mails of commits that change nothing, which git can write but not apply."""
    return [
        f"{patch.name}: its commit changes no file, so there is nothing to apply. Drop it "
        f"(git rebase --force-rebase --no-keep-empty {PRISTINE}), or put a change into it, then refresh."
        for patch in patches
        if b"\ndiff --git " not in patch.read_bytes()
    ]


def scattered(patches: list[Path]) -> list[str]:
    """Breaches of the rule that one patch creates an own module and no other touches it."""
    created = {path: patch for patch in patches for path, old, _ in promised(patch) if _is_own(path, old)}
    return [
        f"{patch.name}: touches {path}, which {created[path].name} creates; one patch holds an own module whole"
        for patch in patches
        for path, _, _ in sorted(promised(patch))
        if created.get(path, patch) != patch
    ]


def link_farm(line: Line) -> None:
    """Make build/editable/ a package of links: own modules to the checkout, upstream's files to the unpacked tree."""
    tree = unpack(line)
    farm = line.root / "build" / "editable"
    shutil.rmtree(farm, ignore_errors=True)
    targets = {path: tree / path for path in git(tree, "ls-files", "--", PACKAGE).splitlines()}
    targets |= line.own_files()
    for path, target in targets.items():
        if not target.is_file():
            raise PatchQueueError(f"{target} is missing: restore it with git, then install again.")
        (farm / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            (farm / path).symlink_to(target.resolve())
        except OSError as error:
            raise PatchQueueError(f"cannot make links: {error}. On Windows, turn on Developer Mode.") from error


def _is_own(path: str, blob_before: str) -> bool:
    return not blob_before.strip("0") and not path.startswith(("tests/", "docs/"))


def _state(tree: Path) -> tuple[str, str]:
    """The series that the tree was made from, and its commit at that time or at the last refresh."""
    try:
        made_from, exported = (tree / ".git" / "patchqueue").read_text().split()
    except (OSError, ValueError) as error:
        raise PatchQueueError(f"{tree} was not made by `python -m patchqueue unpack`: move it away first.") from error
    return made_from, exported


def _remember(line: Line, tree: Path) -> None:
    (tree / ".git" / "patchqueue").write_text(f"{line.digest} {git(tree, 'rev-parse', 'HEAD')}")


def _unfinished(tree: Path) -> bool:
    """A stopped am or rebase leaves a clean tree with fewer commits than the series has patches."""
    return any((tree / ".git" / name).exists() for name in ("rebase-apply", "rebase-merge"))


def _unexported(tree: Path) -> bool:
    dirty = git(tree, "status", "--porcelain")
    return bool(dirty) or _unfinished(tree) or git(tree, "rev-parse", "HEAD").strip() != _state(tree)[1]


def _refuse_unfinished(line: Line, tree: Path) -> None:
    """Only a clean, linear tree that was made from the series on disk may replace that series."""
    if not tree.is_dir():
        raise PatchQueueError(f"{tree} is missing: run `python -m patchqueue unpack` first.")
    if _state(tree)[0] != line.digest:
        raise PatchQueueError(
            f"the series changed since {tree} was unpacked: refreshing would undo that. Save your commits "
            f"(git format-patch {PRISTINE}..HEAD), delete the tree, unpack again and apply them there (git am -3)."
        )
    if _unfinished(tree):
        raise PatchQueueError(f"{tree} is in the middle of an am or a rebase: finish or abort it, then refresh.")
    dirty = git(tree, "status", "--porcelain")
    if dirty:
        raise PatchQueueError(f"{tree} has uncommitted changes; commit or discard them, then refresh:\n{dirty}")
    if git(tree, "rev-list", "--merges", f"{PRISTINE}..HEAD"):
        raise PatchQueueError(f"{tree} holds merges, a series cannot: rebase onto {PRISTINE}, then refresh.")


def _edited_in_checkout(line: Line, tree: Path) -> dict[str, Path]:
    """Own modules that were edited in the checkout since the last export; edits on both sides are an error."""
    edited = {}
    exported_as = line.own_modules()
    for path, file in line.own_files().items():
        exported = exported_as[path]
        if not file.is_file():
            raise PatchQueueError(f"{file} is missing: restore it, or remove the module by a commit in {tree}.")
        here = git(tree, "hash-object", "--no-filters", str(file.resolve())).strip()
        there = git(tree, "rev-parse", "--revs-only", f"HEAD:{path}").strip()  # empty when a commit removed it
        if here in (exported, there):
            continue
        if there != exported:
            raise PatchQueueError(f"{path} was edited both in {file} and in {tree}: make them equal, then refresh.")
        edited[path] = file
    return edited


def _fold(tree: Path, edited: dict[str, Path]) -> None:
    """Put each edited own module into the commit that creates it; the contributor's commit returns on failure."""
    if not edited:
        return
    before = git(tree, "rev-parse", "HEAD").strip()
    for path, file in edited.items():
        creator = git(tree, "log", "--diff-filter=A", "--format=%H", f"{PRISTINE}..HEAD", "--", path).split()[-1]
        shutil.copyfile(file, tree / path)
        git(tree, "commit", "--quiet", f"--fixup={creator}", "--", path)
    try:
        git(tree, "rebase", "--quiet", "--interactive", "--autosquash", PRISTINE)
    except PatchQueueError as error:
        with suppress(PatchQueueError):
            git(tree, "rebase", "--abort")
        git(tree, "reset", "--quiet", "--hard", before)
        raise PatchQueueError(
            f"could not fold {', '.join(edited)}: is each created by one commit, touched by no other? {error}"
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
