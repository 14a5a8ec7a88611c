"""What a build says when something is wrong, and that it then makes nothing, on a toy series."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_queue import HOOKED, OWN, PATCHES, SECOND, build, commit, queue, rewrite, run, toy_line

from patchqueue.series import PACKAGE

pytestmark = pytest.mark.wide


def no_patches(folder: Path) -> None:
    """The pyproject.toml without the rest of the repository."""
    shutil.rmtree(folder / "patches")


def empty_series(folder: Path) -> None:
    """The pin without patches."""
    for fix in toy_line(folder).fixes:
        shutil.rmtree(fix)


def empty_folder(folder: Path) -> None:
    """A fix without its patch."""
    (toy_line(folder).series / PATCHES[SECOND]).unlink()


def lost_folder(folder: Path) -> None:
    """A fix less than was recorded."""
    shutil.rmtree(toy_line(folder).series / SECOND)


def wrong_pin(folder: Path) -> None:
    """A sha256 that is not the wheel's."""
    pin = toy_line(folder).pin
    digest = pin.read_text().rstrip()[-64:]
    rewrite(pin, digest, digest[::-1])


def stale_hunk(folder: Path) -> None:
    """A patch made for another release."""
    rewrite(toy_line(folder).series / PATCHES[SECOND], "-import os\n", "-import so\n")


def hand_edited(folder: Path) -> None:
    """A patch that applies to something else than was recorded."""
    rewrite(toy_line(folder).series / PATCHES[SECOND], "+import os  # a toy", "+import os  # another toy")


def without_context(folder: Path) -> None:
    """A hunk without context: git accepts it at another place."""
    patch = toy_line(folder).series / PATCHES[SECOND]
    hunk = r"^@@ .* @@.*\n .*\n-import os\n\+import os  # a toy\n .*\n"
    patch.write_text(re.sub(hunk, "@@ -9,0 +9 @@\n+import this\n", patch.read_text("utf-8"), flags=re.MULTILINE))


def unsynced_module(folder: Path) -> None:
    """An own module that was edited and not exported."""
    rewrite(folder / OWN, "hello", "good day")


def stray_init(folder: Path) -> None:
    """The file that would shadow the installed package."""
    (folder / PACKAGE / "__init__.py").touch()


def stray_in_a_feature(folder: Path) -> None:
    """A file of an editor or a notebook among the modules that are shipped."""
    (folder / PACKAGE / "toy_feature" / "notes.txt").touch()


def missing_feature(folder: Path) -> None:
    """A feature that is named and not there."""
    shutil.rmtree(folder / PACKAGE / "toy_feature")


def feature_of_upstreams_name(folder: Path) -> None:
    """A release that has come to have a package of that name."""
    rewrite(folder / "pyproject.toml", '["toy_feature"]', '["base"]')
    shutil.rmtree(folder / PACKAGE / "toy_feature")


def patched_template(folder: Path) -> None:
    """A modified file that cannot carry the notice."""
    tree = toy_line(folder).scratch
    run(tree, "git", "switch", "--quiet", "--create", "04-card", "pristine")
    template = tree / "sentence_transformers/base/model_card_template.md"
    template.write_text("mine\n" + template.read_text("utf-8"), "utf-8")
    commit(tree, "Change the card")
    queue(folder, "refresh")


def another_version(folder: Path) -> None:
    """A pyproject.toml that was not moved on with the pin."""
    rewrite(folder / "pyproject.toml", 'version = "6.2.0+', 'version = "6.1.0+')


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (no_patches, ["is no whole series: it has no upstream.txt", "from the whole repository"]),
        (empty_series, ["or no *.patch in any folder NN-name"]),
        pytest.param(empty_folder, [f"or no *.patch in {SECOND}"], marks=pytest.mark.wide),
        (lost_folder, ["apply, but to another tree", "a folder was added or lost"]),
        pytest.param(
            wrong_pin, ["Expected sha256", "serves another file than the pinned one"], marks=pytest.mark.wide
        ),
        (stale_hunk, [f"{PATCHES[SECOND]} does not apply", f"error: patch failed: {HOOKED}:", "git am -3"]),
        pytest.param(
            hand_edited, ["apply, but to another tree", "patches were edited by hand"], marks=pytest.mark.wide
        ),
        pytest.param(without_context, ["apply, but to another tree"], marks=pytest.mark.wide),
        (unsynced_module, [f" M {OWN}\n", "refresh"]),
        pytest.param(
            stray_init,
            [" M sentence_transformers/__init__.py\n"],
            marks=pytest.mark.wide,
        ),
        pytest.param(
            stray_in_a_feature,
            ["?? sentence_transformers/toy_feature/notes.txt\n", "in no patch and no feature"],
            marks=pytest.mark.wide,
        ),
        pytest.param(
            missing_feature,
            ["/toy_feature/__init__.py for the feature 'toy_feature'"],
            marks=pytest.mark.wide,
        ),
        pytest.param(
            feature_of_upstreams_name,
            ["/base/__init__.py for the feature 'base'"],
            marks=pytest.mark.wide,
        ),
        pytest.param(
            patched_template, ["model_card_template.md is patched but cannot carry a notice"], marks=pytest.mark.wide
        ),
        pytest.param(another_version, ["has version 6.1.0+", "upstream.txt pins 6.2.0"], marks=pytest.mark.wide),
    ],
)
def test_a_build_that_fails_says_what_to_do_and_makes_nothing(
    checkout: Path, tmp_path: Path, spoil: Callable[[Path], None], messages: list[str]
) -> None:
    """One message, no traceback, no artifact."""
    spoil(checkout)
    done = build(checkout, "wheel", tmp_path / "out", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert [message for message in messages if message not in done.stdout] == [], done.stdout
    assert not list(tmp_path.glob("out/*"))


def test_a_build_without_git_names_git(checkout: Path, tmp_path: Path) -> None:
    """Slim container images have none."""
    done = build(checkout, "wheel", tmp_path / "out", check=False, env={"PATH": str(tmp_path)})
    assert done.returncode != 0
    assert "git is missing" in done.stdout
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.wide
def test_a_build_that_cannot_reach_the_index_names_the_settings_that_count(checkout: Path, tmp_path: Path) -> None:
    """pip's command line does not reach a build; its variables and its configuration file do."""
    next(toy_line(checkout).series.glob("*.whl")).unlink()
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"}
    nowhere |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_INDEX": "0"}
    done = build(checkout, "wheel", tmp_path / "out", check=False, env=nowhere)
    assert done.returncode != 0
    assert "pip could not get sentence-transformers==6.2.0" in done.stdout
    assert "PIP_INDEX_URL or pip's configuration file" in done.stdout
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.wide
def test_pip_shows_the_message_and_installs_nothing(checkout: Path, tmp_path: Path) -> None:
    """The message survives pip's own reporting, in an isolated build."""
    stale_hunk(checkout)
    run(tmp_path, sys.executable, "-m", "venv", "--without-pip", "venv")
    pip = (sys.executable, "-m", "pip", "--python", str(tmp_path / "venv"))
    done = run(tmp_path, *pip, "install", "--no-deps", str(checkout), check=False)
    assert done.returncode != 0
    assert f"error: patch failed: {HOOKED}:" in done.stdout
    assert run(tmp_path, *pip, "freeze").stdout == ""
