"""One line of the patch queue: a pinned upstream wheel, a series of patches, and the own modules the series creates.

Guarantee: `build_tree` returns the release with exactly what the series promises, or raises `PatchQueueError`.
git accepts more than that (context at another offset, nothing at all inside an ignored folder), therefore each
commit's blobs are compared with the full blob names that its patch records.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "sentence_transformers"
PRISTINE = "pristine"
"""The tag of the first commit of an applied tree: the release, with LF line ends."""

_PINS = "patches/*/*/upstream.txt"
_NO_BLOB = "0" * 40
_CHANGE = re.compile(
    r"^diff --git a/(.+) b/\1\n(?:(?:new|deleted) file mode \d+\n)?index ([0-9a-f]{40})\.\.([0-9a-f]{40})\b",
    re.MULTILINE,
)
_AUTHOR = {"NAME": "patchqueue", "EMAIL": "patchqueue@localhost", "DATE": "2000-01-01T00:00:00Z"}
_PIP_HINTS = {
    "DO NOT MATCH THE HASHES": "The index serves another file than the pinned one: nothing was installed. Ask whoever "
    "runs that index, or use another one; change the pin only after comparing with the release on PyPI.",
    "No module named pip": "The build runs `python -m pip`: install pip into the environment that builds.",
    "": "The build asks the index that PIP_INDEX_URL or pip's configuration file names; --index-url on the command "
    "line and uv's settings do not reach it. Set one of the two, or PIP_FIND_LINKS to a folder holding the wheel.",
}


class PatchQueueError(Exception):
    """A line that cannot be built or exported; the message says what was found, the rule, and the way out."""


@dataclass(frozen=True)
class Line:
    """One `[tool.patchqueue]` table: the folder of its pyproject.toml, its series, its own modules, its version."""

    root: Path
    series: Path
    modules: Path | None  # None: own modules are kept in the patches alone
    local_version: str
    extras: tuple[tuple[str, tuple[str, ...]], ...] = ()  # names of our own, with their requirements

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
        extras = tuple((name, tuple(requires)) for name, requires in table.get("extras", {}).items())
        line = cls(root, root / table["series"], modules, table["local-version"], extras)
        line._complain_if_incomplete()
        return line

    @classmethod
    def find(cls, name: str, checkout: Path) -> Line:
        """The line or series called `name`: a folder, or `package/release` under `checkout`/patches."""
        series = checkout / "patches" / name
        folder = series if series.is_dir() else Path(name).resolve()
        if (folder / "pyproject.toml").is_file():
            return cls.load(folder)
        line = cls(checkout, folder, None, "")
        if not line.pin.is_file():
            known = sorted(pin.parent.relative_to(checkout / "patches").as_posix() for pin in checkout.glob(_PINS))
            raise PatchQueueError(f"{name} is no line and no series. There are: {', '.join(known) or 'none here'}.")
        line._complain_if_incomplete()
        return line

    def _complain_if_incomplete(self) -> None:
        if not self.pin.is_file():
            raise PatchQueueError(
                f"{self.series} has no upstream.txt: this folder is not the whole checkout. "
                f"Install from git+https://… or from the sdist."
            )
        if not self.patches:
            raise PatchQueueError(
                f"{self.series} holds no *.patch: an empty series is upstream under our name. Restore it with git."
            )

    @property
    def pin(self) -> Path:
        """The pip requirements file that names upstream's wheel and its sha256."""
        return self.series / "upstream.txt"

    @property
    def upstream(self) -> tuple[str, str]:
        """The name and version that upstream.txt pins."""
        pinned = re.search(r"^([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", self.pin.read_text("utf-8"), re.MULTILINE)
        if pinned is None:
            raise PatchQueueError(f"{self.pin} must hold one line 'name==version --hash=sha256:<64 hex digits>'.")
        return pinned[1], pinned[2]

    @property
    def package(self) -> str:
        """The folder of the import package in the wheel."""
        return self.upstream[0].replace("-", "_")

    @property
    def source(self) -> str:
        """The folder of the import package in upstream's repository: as in the wheel, or under src/."""
        in_src = f"src/{self.package}/"
        paths = (path for patch in self.patches for path, _, _ in promised(patch))
        return f"src/{self.package}" if any(path.startswith(in_src) for path in paths) else self.package

    @property
    def patches(self) -> list[Path]:
        """The series, in order."""
        return sorted(self.series.glob("*.patch"))

    @property
    def scratch(self) -> Path:
        """Where the contributor's unpacked tree lives."""
        return self.root / "build" / "-".join(self.upstream)

    @property
    def digest(self) -> str:
        """Names the state of the series on disk, so that a tree knows whether it was made from it."""
        parts = [part for file in (self.pin, *self.patches) for part in (file.name.encode(), file.read_bytes())]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def own_modules(self) -> dict[str, str]:
        """Files of the package that the series creates, with the blob of each."""
        changes = [change for patch in self.patches for change in promised(patch)]
        return {path: new for path, old, new in changes if old == _NO_BLOB and path.startswith(f"{self.source}/")}

    def stray_modules(self) -> list[str]:
        """Files among the own modules that no patch creates."""
        if self.modules is None:
            return []
        kept = {file for file in self.modules.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
        return sorted({file.relative_to(self.modules.parent).as_posix() for file in kept} - set(self.own_modules()))

    def own_file(self, path: str) -> Path:
        """Where an own module, named as inside the package tree, is kept in the checkout."""
        assert self.modules is not None
        return self.modules.parent / path

    def own_files(self) -> dict[str, Path]:
        """The files of the checkout that hold own modules, by name; none where the patches alone hold them."""
        return {} if self.modules is None else {path: self.own_file(path) for path in self.own_modules()}


def run(command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run git or pip, its messages in English, its output as text that survives any byte."""
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**env, "LC_ALL": "C", "LANGUAGE": "C"},
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        if not cwd.is_dir():
            raise PatchQueueError(f"{cwd} is missing: run `python -m patchqueue unpack` first.") from error
        # pip is run by the Python that runs this.
        raise PatchQueueError(
            "git is missing, and git applies the patches: install it (apt-get install git)."
        ) from error


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


def git(tree: Path, *arguments: str, **committer: str) -> str:
    """Run git in `tree` alone: no user or system settings, no repository around it, a fixed committer or the given."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
    # Inside a folder that an outer repository ignores, git would do nothing and exit 0.
    env |= {"GIT_CEILING_DIRECTORIES": str(tree.parent.resolve())}
    env |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _AUTHOR.items()}
    env |= {"GIT_SEQUENCE_EDITOR": "true", **committer}  # take rebase's list of steps as it is
    # These two are read from ~/.config/git even when there is no global configuration file.
    unset = ["-c", f"core.attributesFile={os.devnull}", "-c", f"core.excludesFile={os.devnull}"]
    done = run(["git", *unset, *arguments], tree, env)
    if done.returncode != 0:
        raise PatchQueueError(f"git {' '.join(arguments[:2])} failed in {tree}:\n{done.stderr or done.stdout}")
    return done.stdout


def promised(patch: Path) -> set[tuple[str, str, str]]:
    """What a patch says it changes: (path, blob before, blob after)."""
    return set(_CHANGE.findall(patch.read_text("utf-8")))


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
    git(tree, "add", "--force", ".")
    git(tree, "commit", "--quiet", "--message", f"{' '.join(line.upstream)} as released, with LF line ends")
    git(tree, "tag", PRISTINE)


def apply_series(line: Line, tree: Path) -> None:
    """Make each patch a commit of `tree`; on a hunk that does not apply, say which, and what stands there instead."""
    try:
        # Neither -3 nor --reject: half an application is none. Line ends are part of the patch.
        git(tree, "am", "--quiet", "--keep-cr", *(str(patch.resolve()) for patch in line.patches))
    except PatchQueueError as error:
        raise _failed_hunk(line, tree, str(error)) from error


def _failed_hunk(line: Line, tree: Path, said: str) -> PatchQueueError:
    """The patch, file, line, expected and found lines of the first hunk that git refused."""
    session = tree / ".git" / "rebase-apply"
    where = re.search(r"patch failed: (.+):(\d+)$", said, re.MULTILINE)
    if not (session / "next").is_file():
        return PatchQueueError(f"{line.series}: git am could not read the series.\n{said}")
    patch = line.patches[int((session / "next").read_text()) - 1]
    advice = (
        f"{line.series} is made for {'=='.join(line.upstream)}; `python -m patchqueue unpack` lays it out to mend."
    )
    if where is None:
        return PatchQueueError(f"{patch.name} does not apply.\n{said}\n{advice}")
    path, start = where[1], int(where[2])
    section = patch.read_text("utf-8").partition(f"diff --git a/{path} ")[2].partition("\ndiff --git ")[0]
    hunk = re.search(rf"^@@ -{start}[, ].*\n((?:[ +\-\\].*\n?)*)", section, re.MULTILINE)
    expected = [text[1:] for text in hunk[1].splitlines() if text[0] in " -"] if hunk else []
    found = (tree / path).read_text("utf-8").splitlines()[start - 1 :][: len(expected)]
    lines = "\n".join([*(f"  expected: {text}" for text in expected), *(f"  found:    {text}" for text in found)])
    return PatchQueueError(f"{patch.name} does not apply to {path}, line {start}:\n{lines}\n{advice}")


def verify(line: Line, tree: Path) -> None:
    """Each commit changed exactly the files its patch names, into exactly the blobs it names."""
    options = ("--reverse", "--format=tformat:commit", "--raw", "--no-abbrev", "--no-renames")
    log = git(tree, "log", *options, f"{PRISTINE}..HEAD")
    raw = re.compile(r"^:\d+ \d+ (\w+) (\w+) [A-Z]\t(.+)$", re.MULTILINE)
    made = [{(path, old, new) for old, new, path in raw.findall(text)} for text in log.split("commit\n")[1:]]
    if len(made) != len(line.patches):
        raise PatchQueueError(f"git made {len(made)} commits of the {len(line.patches)} patches in {line.series}.")
    for patch, changes in zip(line.patches, made, strict=True):
        if changes != promised(patch):
            differing = sorted({path for path, _, _ in changes ^ promised(patch)})
            raise PatchQueueError(
                f"{patch.name} applied, but the result is not what its 'index' lines promise: {', '.join(differing)}. "
                f"A patch edited by hand, or made with other options? Export it again with unpack and refresh."
            )


def compare_own_modules(line: Line, tree: Path) -> None:
    """The own modules in the checkout are those that the series creates, byte for byte, and no others."""
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
    stray = line.stray_modules()
    if stray:
        raise PatchQueueError(
            f"{', '.join(stray)}: in {PACKAGE}/ but created by no patch. "
            f"Create own modules by a commit in the unpacked tree and refresh; delete what does not belong."
        )


def build_tree(line: Line, tree: Path) -> Path:
    """The release with the series applied and verified, in the empty folder `tree`."""
    start_tree(line, tree)
    apply_series(line, tree)
    verify(line, tree)
    compare_own_modules(line, tree)
    return tree
