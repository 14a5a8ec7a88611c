"""A series on disk: a pinned release, a folder for each fix, and what the checkout ships besides.

A fix is a pull request: mails made against the pristine release, or against the fix that a trailer `Needs:` names, and
PULL_REQUEST.md. In the order of their names all fixes stack; tree.txt names the git tree that results.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from patchqueue.git import PatchQueueError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "sentence_transformers"
FOLDERS = "[0-9][0-9]-*"
"""The folders of fixes, and the branches on which a contributor works on them."""
_CHANGE = re.compile(
    r"^diff --git a/(.+) b/\1\n(?:(?:new|deleted) file mode \d+\n)?index ([0-9a-f]{40})\.\.([0-9a-f]{40})\b",
    re.MULTILINE,
)


def promised(patch: Path) -> set[tuple[str, str, str]]:
    """What a patch says it changes: (path, blob before, blob after)."""
    return set(_CHANGE.findall(patch.read_text("utf-8")))


def mails(fix: Path) -> list[Path]:
    """The patches in the folder of a fix, in order."""
    return sorted(fix.glob("*.patch"))


def paths(fix: Path) -> set[str]:
    """The files that the patches of a fix change."""
    return {path for patch in mails(fix) for path, _, _ in promised(patch)}


def letter(fix: Path) -> str:
    """The headers and the message of a fix's last commit."""
    return mails(fix)[-1].read_text("utf-8").partition("\ndiff --git ")[0]


def needs(fix: Path) -> str:
    """The fix that this one stands on; empty where that is the release, as it should be."""
    return "".join(re.findall(r"^Needs: (\S+)$", letter(fix), re.MULTILINE))


@dataclass(frozen=True)
class Line:
    """One series, with the `[tool.patchqueue]` table that says how it is built, if it is."""

    root: Path
    series: Path
    modules: Path | None = None  # the checkout's copies of own modules; None: they are kept in the patches alone
    features: tuple[str, ...] = ()  # packages that are shipped from the checkout, in no patch

    @classmethod
    def load(cls, root: Path) -> Line:
        """Read the table from `root`/pyproject.toml and check that the folders hold a series."""
        try:
            table = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["patchqueue"]
        except (OSError, KeyError) as error:
            raise PatchQueueError(
                f"{root} is no line of the patch queue: no pyproject.toml with a [tool.patchqueue] table. "
                f"Run this in a git checkout, or name the line's folder."
            ) from error
        modules = root / table["modules"] if "modules" in table else None
        return cls(root, root / table["series"], modules, tuple(table.get("features", ())))._complete()

    @classmethod
    def find(cls, name: str, checkout: Path) -> Line:
        """The line of a series or a fix: a folder, `package/release[/fix]` under patches/, or a fix's name."""
        if name[:2].isdigit():  # a fix of the checkout's own line
            name = str(cls.load(checkout).series / name)
        folders = [folder for folder in (checkout / "patches" / name, checkout / name) if folder.is_dir()]
        around = [each for folder in folders for each in (folder, folder.parent) if (each / "upstream.txt").is_file()]
        if not around:
            pins = checkout.glob("patches/*/*/upstream.txt")
            known = ", ".join(sorted(pin.parent.relative_to(checkout / "patches").as_posix() for pin in pins))
            raise PatchQueueError(f"{name} is no series and no folder in one. There are: {known or 'none here'}.")
        for root in (checkout, around[0]):
            if (root / "pyproject.toml").is_file() and (line := cls.load(root)).series.samefile(around[0]):
                return line
        return cls(checkout, around[0])._complete()

    def _complete(self) -> Line:
        """This line, if its folder holds one."""
        empty = [fix.name for fix in self.fixes if not mails(fix)]
        if empty or not self.fixes or not self.pin.is_file():
            raise PatchQueueError(
                f"{self.series} is no whole series: it has no upstream.txt, or no *.patch in "
                f"{', '.join(empty) or 'any folder NN-name'}. Restore it with git, or install from the whole "
                f"repository, git+https://…, or from the sdist."
            )
        before = {""}
        for fix in self.fixes:
            if (wanted := needs(fix)) not in before:
                raise PatchQueueError(f"{fix.name} says 'Needs: {wanted}', but no fix before it has that name.")
            before.add(fix.name)
        return self

    @property
    def pin(self) -> Path:
        """The pip requirements file that names upstream's wheel and its sha256."""
        return self.series / "upstream.txt"

    @property
    def tree_id(self) -> Path:
        """The file that names the git tree of the stack; `refresh` writes it, every build compares it."""
        return self.series / "tree.txt"

    @property
    def upstream(self) -> tuple[str, str]:
        """The name and version that upstream.txt pins."""
        pinned = re.search(r"^([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", self.pin.read_text("utf-8"), re.MULTILINE)
        if pinned is None:
            raise PatchQueueError(f"{self.pin} must hold one line 'name==version --hash=sha256:<64 hex digits>'.")
        return pinned[1], pinned[2]

    @property
    def source(self) -> str:
        """The folder of the import package in upstream's repository: as in the wheel, or under src/."""
        package = self.upstream[0].replace("-", "_")
        return package if package == PACKAGE else f"src/{package}"

    @property
    def fixes(self) -> list[Path]:
        """The folders of the fixes, in order."""
        return [folder for folder in sorted(self.series.glob(FOLDERS)) if folder.is_dir()]

    @property
    def patches(self) -> list[Path]:
        """The mails of all fixes, in order."""
        return [patch for fix in self.fixes for patch in mails(fix)]

    @property
    def scratch(self) -> Path:
        """Where the contributor's unpacked tree lives."""
        return self.root / "build" / "-".join(self.upstream)

    @property
    def digest(self) -> str:
        """Names the state of the series on disk, so that a tree knows whether it was made from it."""
        parts = [(file.relative_to(self.series).as_posix(), file.read_bytes()) for file in (self.pin, *self.patches)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def chain(self, fix: Path) -> list[Path]:
        """A fix after those that it needs."""
        before = next((each for each in self.fixes if each.name == needs(fix)), None)
        return [*(self.chain(before) if before else []), fix]

    def own_modules(self) -> list[str]:
        """The files that the series adds to the package."""
        changes = [change for patch in self.patches for change in sorted(promised(patch))]
        return [path for path, old, _ in changes if path.startswith(f"{self.source}/") and not old.strip("0")]

    def own_files(self) -> dict[str, Path]:
        """The files of the checkout that hold own modules, by name; none where the patches alone hold them."""
        return {} if self.modules is None else {path: self.modules.parent / path for path in self.own_modules()}
