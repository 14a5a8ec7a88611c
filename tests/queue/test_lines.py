"""The release lines beside the newest one: complete, in step with it, and as the README's table says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from toy_queue import ROOT, copy_checkout, run

from patchqueue.rules import check
from patchqueue.series import Line, promised

LINES = {
    line.upstream[1]: line for line in (Line.load(folder.parent) for folder in ROOT.glob("patches/*/*/pyproject.toml"))
}
NEWEST = Line.load(ROOT)
SERIES = [Line.find(str(pin.parent), ROOT) for pin in sorted(ROOT.glob("patches/*/*/upstream.txt"))]


def by_name(line: Line) -> dict[str, set[str]]:
    """The blobs that the patches make of each own module, by file name: older releases have other folders."""
    own = line.own_modules()
    made: dict[str, set[str]] = {}
    for patch in line.patches:
        for path, _, blob in promised(patch):
            if path in own:
                made.setdefault(Path(path).name, set()).add(blob)
    return made


@pytest.mark.parametrize("release", LINES)
def test_own_modules_are_the_same_in_every_line(release: str) -> None:
    """A module that two lines have is one module; edited in one, it is to be taken over into the others."""
    ours, newest = by_name(LINES[release]), by_name(NEWEST)
    assert {name: blobs - newest[name] for name, blobs in ours.items() if blobs - newest[name]} == {}


@pytest.mark.wide
@pytest.mark.parametrize("line", SERIES, ids=lambda line: "-".join(line.upstream))
def test_every_series_is_in_order(line: Line) -> None:
    """Texts, application of each fix alone and of all, identical re-export."""
    check(line)


def versions_tested(release: str, package: str) -> list[tuple[int, ...]]:
    """The versions of a package that a line is tested with, by its requirements and the Makefile, ascending."""
    names = [f"lines/{release}.txt"] if release in LINES else ["constraints.txt"]
    if f"test-line-{release}-newest:" in (ROOT / "Makefile").read_text("utf-8"):
        names.append("constraints.txt")
    texts = "\n".join((ROOT / "requirements" / name).read_text("utf-8") for name in names)
    found = re.findall(rf"^{package}==([\d.]+)", texts, re.MULTILINE)
    return sorted(tuple(map(int, version.split("."))) for version in found)


def matches(cell: str, versions: list[tuple[int, ...]]) -> bool:
    """Whether a cell, `4.57` or `4.57 or newer`, names the oldest version; the newest is another where it says so."""
    named = tuple(map(int, cell.removesuffix(" or newer").split(".")))
    oldest, newest = (version[: len(named)] for version in (versions[0], versions[-1]))
    return oldest == named and (newest > oldest or "newer" not in cell)


def version(line: Line) -> str:
    """What a line's pyproject.toml calls the fork."""
    (found,) = re.findall(r'^version = "(.+)"$', (line.root / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    return str(found)


def test_the_readmes_table_names_each_line_and_the_stack_it_is_tested_on() -> None:
    """Release, stack, address and installed version are those of the folders and of the pinned requirements."""
    row = re.compile(r"^\| (\S.*) / (\S.*) / (\S.*) \| (\S+) \| `((\S+)\+\S+)` \|$", re.MULTILINE)
    rows = {cells[-1]: cells for cells in row.findall((ROOT / "README.md").read_text("utf-8"))}
    assert set(rows) == {NEWEST.upstream[1], *LINES}
    for release, (own, transformers, accelerate, address, installs, _) in rows.items():
        line = LINES.get(release, NEWEST)
        assert installs == version(line)
        folder = line.series.relative_to(ROOT).as_posix()
        assert address.strip("`") == (f"#subdirectory={folder}" if release in LINES else "–")
        newest_named = own.split(" to ")[-1].removesuffix("x")  # `4.x to 5.x`: up to 5.
        assert release.startswith(newest_named)
        assert matches(transformers, versions_tested(release, "transformers")), (release, transformers)
        assert matches(accelerate, versions_tested(release, "accelerate")), (release, accelerate)


def test_every_line_is_in_make_test_lines() -> None:
    """A line that no command tests is none."""
    (listed,) = re.findall(r"^LINES := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(listed.split()) == set(LINES)


TAG = "v6.2.0-epoch.2"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as a repository of its own, tagged as a release is."""
    folder = copy_checkout(tmp_path_factory.mktemp("lines") / "repository", patches=True)
    person = ("-c", "user.name=A", "-c", "user.email=a@b")
    for args in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", TAG]):
        run(folder, "git", *person, *args)
    return folder


def address(repository: Path, line: Line) -> str:
    """What the README says to install for a line of that repository."""
    folder = line.series.relative_to(ROOT).as_posix()
    return f"sentence-transformers @ git+file://localhost{repository}@{TAG}#subdirectory={folder}"


def installers(folder: Path) -> dict[str, tuple[str, ...]]:
    """The commands that install into a new virtual environment in `folder`, by the tool."""
    run(folder, sys.executable, "-m", "venv", "--without-pip", "venv")
    python = str(folder / "venv" / "bin" / "python")
    return {
        "pip": (sys.executable, "-m", "pip", "--python", python, "install"),
        "uv": (sys.executable, "-m", "uv", "pip", "install", "--python", python),
    }


@pytest.mark.wide
@pytest.mark.parametrize("tool", ["pip", "uv"])
@pytest.mark.parametrize("release", LINES)
def test_a_line_installs_by_its_folder_and_direct_url_names_it(
    release: str, tool: str, repository: Path, tmp_path: Path
) -> None:
    """The README's address gives that line, and what is installed says which commit and which line it is."""
    line = LINES[release]
    run(tmp_path, *installers(tmp_path)[tool], "--no-deps", address(repository, line))
    (found,) = (tmp_path / "venv" / "lib").glob("python*/site-packages/sentence_transformers-*.dist-info")
    assert found.name == f"sentence_transformers-{version(line)}.dist-info"
    said = json.loads((found / "direct_url.json").read_text("utf-8"))
    assert said["subdirectory"] == line.series.relative_to(ROOT).as_posix()
    assert said["vcs_info"]["commit_id"] == run(repository, "git", "rev-parse", "HEAD").stdout.strip()
    frozen = run(tmp_path, sys.executable, "-m", "pip", "--python", str(tmp_path / "venv/bin/python"), "freeze").stdout
    assert frozen.endswith(f"@{said['vcs_info']['commit_id']}#subdirectory={said['subdirectory']}\n")


@pytest.mark.wide
@pytest.mark.parametrize("release", LINES)
def test_a_lock_file_names_the_line(release: str, repository: Path, tmp_path: Path) -> None:
    """uv's and the standard's lock files pin the commit and the folder."""
    (tmp_path / "wanted.in").write_text(address(repository, LINES[release]))
    lock = (sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-deps", "wanted.in", "--output-file")
    commit = run(repository, "git", "rev-parse", "HEAD").stdout.strip()
    folder = LINES[release].series.relative_to(ROOT).as_posix()
    for name in ("requirements.txt", "pylock.toml"):
        run(tmp_path, *lock, name)
        locked = (tmp_path / name).read_text("utf-8")
        assert commit in locked and folder in locked
