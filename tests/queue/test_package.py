"""What gets installed: upstream's package, complete, with the series applied and nothing else.

The series under test is the checkout's own; the checkout itself is never built in.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from toy_queue import build, copy_checkout, queue, run

from patchqueue.hatch_build import mark_modified
from patchqueue.series import PACKAGE, Line, promised
from patchqueue.tree import upstream_wheel

VERSION = "6.2.0+epoch.2"
DIST_INFO = f"{PACKAGE}-{VERSION}.dist-info"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull}

pytestmark = pytest.mark.xdist_group("package")  # a wheel, built once


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"), patches=True)


@pytest.fixture(scope="session")
def line(checkout: Path) -> Line:
    """The line under test."""
    return Line.load(checkout)


@pytest.fixture(scope="session")
def wheel_file(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fork's wheel."""
    out = tmp_path_factory.mktemp("wheel")
    build(checkout, "wheel", out)
    return next(out.iterdir())


@pytest.fixture(scope="session")
def wheel(wheel_file: Path) -> dict[str, bytes]:
    """The files of the fork's wheel."""
    return contents(wheel_file.read_bytes())


@pytest.fixture(scope="session")
def upstream(line: Line) -> dict[str, bytes]:
    """The files of upstream's wheel."""
    return contents(upstream_wheel(line))


def contents(archive: bytes) -> dict[str, bytes]:
    """The files of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def added(line: Line) -> set[str]:
    """What the fork has beside upstream's files: own modules, and the features as they are in the checkout."""
    features = {file for feature in line.features for file in (line.root / PACKAGE / feature).rglob("*.py")}
    return {*line.own_modules(), *(file.relative_to(line.root).as_posix() for file in features)}


def package(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of the import package, in an archive that holds more."""
    return {name: data for name, data in files.items() if name.startswith(f"{PACKAGE}/")}


def empty_venv(folder: Path) -> tuple[str, ...]:
    """Make a virtual environment and return the pip command that installs into it."""
    run(folder, sys.executable, "-m", "venv", "--without-pip", "venv")
    return (sys.executable, "-m", "pip", "--python", str(venv_python(folder)))


def venv_python(folder: Path) -> Path:
    """The interpreter of `empty_venv`."""
    return folder / "venv" / "bin" / "python"


def installed_text(folder: Path, name: str) -> str:
    """What the venv's interpreter finds for a file of the package; importing it would need torch."""
    code = "import importlib.util as u; print(u.find_spec('sentence_transformers').submodule_search_locations[0])"
    found = run(folder, str(venv_python(folder)), "-c", code).stdout.strip()
    return (Path(found).parent / name).read_text("utf-8")


# --- the wheel


def test_the_wheel_holds_upstreams_files_the_own_modules_and_the_features_alone(
    line: Line, wheel: dict[str, bytes], upstream: dict[str, bytes]
) -> None:
    """Nothing is lost, and no test, document or stray file of the checkout gets in."""
    assert set(package(wheel)) == set(package(upstream)) | added(line)
    assert {name.partition("/")[0] for name in wheel} == {PACKAGE, DIST_INFO}


def test_files_that_no_patch_names_are_upstreams_with_lf(
    line: Line, wheel: dict[str, bytes], upstream: dict[str, bytes]
) -> None:
    """Only the line ends differ from the release."""
    named = {path for patch in line.patches for path, _, _ in promised(patch)}
    kept = set(package(upstream)) - named
    assert {name: wheel[name] for name in kept} == {name: upstream[name].replace(b"\r\n", b"\n") for name in kept}


def test_modified_files_alone_carry_one_notice_below_which_the_patched_text_follows(
    line: Line, wheel: dict[str, bytes], upstream: dict[str, bytes], tmp_path: Path
) -> None:
    """Without its notice each modified file is what plain `git apply` makes of the release."""
    notice = b"# Modified from sentence-transformers 6.2.0 by the patches that NOTICE describes.\n"
    for name, data in package(upstream).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data.replace(b"\r\n", b"\n"))
    run(tmp_path, "git", "init", "--quiet")
    for patch in line.patches:
        run(tmp_path, "git", "apply", str(patch))
    named = {path for patch in line.patches for path, _, _ in promised(patch) if path.startswith(f"{PACKAGE}/")}
    assert {name for name, data in package(wheel).items() if notice in data} == named - set(line.own_modules())
    assert {name: wheel[name].replace(notice, b"", 1) for name in named} == {
        name: (tmp_path / name).read_bytes() for name in named
    }


def test_a_notice_stays_below_the_lines_that_python_reads_only_at_the_top(line: Line, tmp_path: Path) -> None:
    """A shebang and an encoding stay lines 1 and 2."""
    (tmp_path / PACKAGE).mkdir()
    for args in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        run(tmp_path, "git", "-c", "user.name=A", "-c", "user.email=a@b", *args)
    file = tmp_path / PACKAGE / "script.py"
    for text, message in (("old\n", "a"), ("#!/usr/bin/python\n# -*- coding: utf-8 -*-\n# new\n", "b")):
        file.write_text(text)
        run(tmp_path, "git", "add", ".")
        run(tmp_path, "git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "-m", message)
    run(tmp_path, "git", "tag", "pristine", "HEAD~1")
    mark_modified(line, tmp_path)
    first, second, third, last = file.read_text().splitlines()
    assert (first[:2], second[:5], last) == ("#!", "# -*-", "# new")
    assert third.startswith("# Modified from")


def test_licence_files_are_upstreams_to_the_byte(
    checkout: Path, wheel: dict[str, bytes], upstream: dict[str, bytes]
) -> None:
    """LICENSE and NOTICE.txt as released, NOTICE as in the checkout."""
    theirs = {name.rpartition("/")[2]: data for name, data in upstream.items() if "/licenses/" in name}
    assert theirs
    expected = theirs | {"NOTICE": (checkout / "NOTICE").read_bytes()}
    assert {name.rpartition("/")[2]: data for name, data in wheel.items() if "/licenses/" in name} == expected


def test_record_lists_every_file_with_its_hash_and_size(wheel: dict[str, bytes]) -> None:
    """An installer that verifies RECORD accepts the wheel."""
    rows = {
        name: (digest, size) for name, digest, size in csv.reader(wheel[f"{DIST_INFO}/RECORD"].decode().splitlines())
    }
    assert rows.pop(f"{DIST_INFO}/RECORD") == ("", "")
    assert rows == {
        name: (
            f"sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')}",
            str(len(data)),
        )
        for name, data in wheel.items()
        if name != f"{DIST_INFO}/RECORD"
    }


@pytest.mark.wide
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="importing the package needs torch")
def test_dunder_version_stays_upstreams(wheel_file: Path, tmp_path: Path) -> None:
    """A model saved with a local version would make unpatched upstream warn on loading."""
    shutil.unpack_archive(wheel_file, tmp_path, "zip")
    code = "import sentence_transformers as s; print(s.__file__, s.__version__)"
    done = run(tmp_path, sys.executable, "-c", code, env={"PYTHONPATH": str(tmp_path)})
    assert done.stdout.split() == [str(tmp_path / PACKAGE / "__init__.py"), "6.2.0"]


# --- what must not get in


@pytest.mark.wide
def test_nothing_of_an_edited_checkout_or_machine_gets_into_the_wheel(
    checkout: Path, wheel_file: Path, tmp_path: Path
) -> None:
    """The wheel is the same to the byte beside an edited tree, in an ignoring repository, under hostile settings."""
    copy = Path(shutil.copytree(checkout, tmp_path / "outer" / "ignored"))
    run(tmp_path / "outer", "git", "init", "-q")
    (tmp_path / "outer" / ".gitignore").write_text("*\n")
    queue(copy, "unpack")
    (Line.load(copy).scratch / PACKAGE / "__init__.py").write_text("raise SystemExit\n")
    (copy / "elsewhere" / PACKAGE).mkdir(parents=True)
    (copy / "elsewhere" / PACKAGE / "__init__.py").touch()
    home = tmp_path / "home"
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "ignore").write_text("*.py\n")
    (home / ".config" / "git" / "attributes").write_text("* text eol=crlf\n")
    (home / ".gitconfig").write_text("[core]\nautocrlf=true\n[commit]\ngpgsign=true\n[apply]\nwhitespace=fix\n")
    hostile = {"HOME": str(home), "GIT_DIR": str(tmp_path / "outer" / ".git"), "GIT_INDEX_FILE": "nowhere"}
    build(copy, "wheel", tmp_path / "out", env=hostile)
    assert (tmp_path / "out" / wheel_file.name).read_bytes() == wheel_file.read_bytes()


# --- the sdist


@pytest.mark.wide
def test_the_sdist_builds_the_same_wheel_with_no_index(checkout: Path, wheel_file: Path, tmp_path: Path) -> None:
    """It bundles upstream's wheel, and a second sdist made from it is the same again."""
    build(checkout, "sdist", tmp_path)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "unpacked")
    assert len(names) == len(set(names))
    (folder,) = (tmp_path / "unpacked").iterdir()
    build(folder, "wheel", tmp_path / "out", env=OFFLINE)
    assert (tmp_path / "out" / wheel_file.name).read_bytes() == wheel_file.read_bytes()
    build(folder, "sdist", tmp_path / "out", env=OFFLINE)
    with tarfile.open(tmp_path / "out" / sdist.name) as archive:
        assert sorted(archive.getnames()) == sorted(names)


# --- installing


@pytest.mark.wide
def test_an_upgrade_over_upstream_and_back_leaves_no_residue(line: Line, wheel_file: Path, tmp_path: Path) -> None:
    """pip replaces the one by the other: the names of all files are then as if it had been installed alone."""
    pip = empty_venv(tmp_path)
    theirs = tmp_path / "sentence_transformers-6.2.0-py3-none-any.whl"
    theirs.write_bytes(upstream_wheel(line))
    states = []
    for file in (theirs, wheel_file, theirs):
        run(tmp_path, *pip, "install", "--no-index", "--no-deps", "--no-compile", "--upgrade", str(file))
        site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
        states.append({str(found.relative_to(site)) for found in site.rglob("*")})
    assert states[0] == states[2]
    changed = {name.replace(VERSION, "6.2.0") for name in states[1]} ^ states[0]
    folders = {str(parent) for path in added(line) for parent in Path(path).parents}
    dist_info = {f"{PACKAGE}-6.2.0.dist-info/{name}" for name in ("top_level.txt", "licenses/NOTICE")}
    assert changed - folders == added(line) | dist_info


@pytest.mark.wide
def test_an_editable_install_shows_edits_on_both_sides_at_once(checkout: Path, tmp_path: Path) -> None:
    """Own modules and features are the checkout's, the rest the unpacked tree's; installing again keeps both."""
    copy = Path(shutil.copytree(checkout, tmp_path / "copy"))
    line = Line.load(copy)
    own, feature = min(line.own_modules()), f"{PACKAGE}/{line.features[0]}/__init__.py"
    pip = empty_venv(tmp_path)
    code = "import sys; from hatchling.build import build_editable; print(build_editable(sys.argv[1]))"
    for _ in range(2):
        run(copy, sys.executable, "-c", code, str(tmp_path))
        (editable,) = tmp_path.glob("*.whl")
        run(tmp_path, *pip, "install", "--no-index", "--no-deps", "--force-reinstall", str(editable))
        for path in (own, feature):
            (copy / path).write_text("OWN = 'edited'\n")
        (line.scratch / PACKAGE / "util" / "tensor.py").write_text("SCRATCH = 'edited'\n")
        assert installed_text(tmp_path, own) == installed_text(tmp_path, feature) == "OWN = 'edited'\n"
        assert installed_text(tmp_path, f"{PACKAGE}/util/tensor.py") == "SCRATCH = 'edited'\n"
    assert VERSION in run(tmp_path, *pip, "list").stdout


@pytest.mark.wide
def test_pip_installs_from_a_git_tag_and_freeze_says_so(
    checkout: Path, wheel: dict[str, bytes], tmp_path: Path
) -> None:
    """The way users install, in an isolated build; the frozen line names the commit."""
    copy = Path(shutil.copytree(checkout, tmp_path / "repo"))
    identity = ("-c", "user.name=A", "-c", "user.email=a@b")
    for args in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", "v6.2.0-epoch.2"]):
        run(copy, "git", *identity, *args)
    pip = empty_venv(tmp_path)
    wanted = f"sentence-transformers[train] @ git+file://localhost{copy}@v6.2.0-epoch.2"
    run(tmp_path, *pip, "install", "--no-deps", wanted)
    commit = run(copy, "git", "rev-parse", "HEAD").stdout.strip()
    assert run(tmp_path, *pip, "freeze").stdout == f"sentence-transformers @ git+file://localhost{copy}@{commit}\n"
    for name in package(wheel):
        assert installed_text(tmp_path, name) == wheel[name].decode()


@pytest.mark.wide
def test_pip_installs_the_checkout_editable_and_the_sdist(checkout: Path, tmp_path: Path) -> None:
    """Both in isolated builds, as a contributor and a packager would."""
    copy = Path(shutil.copytree(checkout, tmp_path / "repo"))
    build(copy, "sdist", tmp_path)
    pip = empty_venv(tmp_path)
    for wanted in (["--editable", str(copy)], [str(next(tmp_path.glob("*.tar.gz")))]):
        run(tmp_path, *pip, "install", "--no-deps", "--force-reinstall", *wanted)
        assert "class BaseTrainer" in installed_text(tmp_path, f"{PACKAGE}/base/trainer.py")
    run(tmp_path, *pip, "uninstall", "--yes", "sentence-transformers")
    with pytest.raises(AssertionError):
        installed_text(tmp_path, f"{PACKAGE}/base/trainer.py")
