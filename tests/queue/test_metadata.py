"""The METADATA and the licence files of each line are upstream's, but for version, readme and an extra of ours."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from toy_queue import ROOT, run

from patchqueue.series import PACKAGE, Line
from patchqueue.tree import upstream_wheel

FOLDERS = (ROOT, *(file.parent for file in sorted(ROOT.glob("patches/*/*/pyproject.toml"))))
EXTRAS = {"6.2.0": {"order": {"matplotlib<4,>=3.8", "rich<16,>=13"}}}
"""Ours, which upstream has under no such name."""
OWN_WORDS = ("metadata_version", "version", "description", "description_content_type", "dynamic")
DIST_INFO = re.compile(r"METADATA|WHEEL|RECORD|top_level\.txt|licenses/.+|LICENSE|NOTICE\.txt")
"""What a wheel may hold beside the package: we make each of these ourselves, or need none (top_level.txt)."""


@pytest.fixture(params=FOLDERS, ids=lambda folder: "-".join(Line.load(folder).upstream))
def line(request: pytest.FixtureRequest) -> Line:
    """Each line that can be installed."""
    return Line.load(request.param)


@pytest.fixture
def upstream(line: Line) -> dict[str, bytes]:
    """The files of upstream's wheel beside the package, by their path in its dist-info folder."""
    with zipfile.ZipFile(io.BytesIO(upstream_wheel(line))) as wheel:
        names = [name for name in wheel.namelist() if not name.startswith(f"{PACKAGE}/")]
        return {name.partition(".dist-info/")[2]: wheel.read(name) for name in names}


def in_one_spelling(metadata: bytes) -> dict[str, Any]:
    """The fields that are to be the same; nothing that METADATA says is passed over."""
    parsed, unparsed = parse_email(metadata)
    assert unparsed == {}
    raw = {field: value for field, value in parsed.items() if field not in OWN_WORDS}
    if raw.get("license") == "Apache 2.0":  # what an expression says since; both together would be an error
        raw["license_expression"] = "Apache-2.0"
        del raw["license"]
        raw["classifiers"] = [name for name in raw["classifiers"] if not name.startswith("License ::")]
    for name in ("keywords", "classifiers", "provides_extra", "license_files"):
        raw[name] = sorted(raw.get(name, []))
    raw["requires_dist"] = sorted(map(spelled, raw["requires_dist"]))
    return raw


def spelled(text: str) -> str:
    """A requirement as packaging writes it: upstream has typing_extensions, hatchling typing-extensions."""
    requirement = Requirement(text)
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def test_the_metadata_is_upstreams_under_a_version_of_ours(
    line: Line, upstream: dict[str, bytes], tmp_path: Path
) -> None:
    """Every field of upstream's wheel, by what hatchling makes of pyproject.toml; an extra and NOTICE are added."""
    code = "import sys, hatchling.build as h; print(h.prepare_metadata_for_build_wheel(sys.argv[1]))"
    run(line.root, sys.executable, "-c", code, str(tmp_path))
    (file,) = tmp_path.glob("*.dist-info/METADATA")
    ours, theirs = in_one_spelling(file.read_bytes()), in_one_spelling(upstream["METADATA"])
    extras = EXTRAS.get(line.upstream[1], {})
    assert not {*extras} & {*theirs["provides_extra"]}
    added = {spelled(f'{wanted}; extra == "{extra}"') for extra, each in extras.items() for wanted in each}
    theirs["provides_extra"] = sorted([*theirs["provides_extra"], *extras])
    theirs["requires_dist"] = sorted([*theirs["requires_dist"], *added])
    theirs["license_files"] = sorted([*theirs["license_files"], "NOTICE"])
    assert ours == theirs
    assert file.parent.name.startswith(f"{PACKAGE}-{line.upstream[1]}+")


def test_licence_files_are_kept_to_the_byte(line: Line, upstream: dict[str, bytes]) -> None:
    """Where hatchling takes them from; before METADATA 2.4 they lie beside it, in licenses/ since."""
    names = parse_email(upstream["METADATA"])[0]["license_files"]
    theirs = {name: upstream.get(f"licenses/{name}", upstream.get(name)) for name in names}
    assert names and theirs == {name: (line.root / name).read_bytes() for name in names}


def test_the_wheel_of_upstream_holds_nothing_that_the_fork_would_drop(upstream: dict[str, bytes]) -> None:
    """Entry points, say."""
    assert [name for name in upstream if not DIST_INFO.fullmatch(name)] == []
