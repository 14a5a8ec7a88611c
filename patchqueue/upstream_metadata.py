"""The `[project]` table of the fork: upstream's METADATA, field by field, under our version and with our extras."""

from __future__ import annotations

import email.utils
import io
import re
import zipfile

from packaging.metadata import parse_email
from packaging.requirements import Requirement

from patchqueue.git import PatchQueueError
from patchqueue.series import PACKAGE, Line
from patchqueue.tree import upstream_wheel

_COPIED = {
    "summary": "description",
    "license_expression": "license",
    "requires_python": "requires-python",
    "keywords": "keywords",
    "classifiers": "classifiers",
    "project_urls": "urls",
}
_HANDLED = {
    *_COPIED,
    "name",
    "license",
    "author_email",
    "maintainer_email",
    "requires_dist",
    "provides_extra",
    "license_files",
}
_OURS = {"metadata_version", "version", "description", "description_content_type", "dynamic"}
_DIST_INFO = re.compile(r"METADATA|WHEEL|RECORD|top_level\.txt|licenses/.+|LICENSE|NOTICE\.txt")
"""Licence files lie beside METADATA before its version 2.4, in licenses/ since."""
_SPDX = {"Apache 2.0": "Apache-2.0"}
"""What older releases have in the free text field License, as the expression that took its place."""


def project_table(line: Line) -> dict[str, object]:
    """Upstream's metadata as a `[project]` table; whatever this cannot carry over whole is an error."""
    files = _dist_info(line)
    raw, unparsed = parse_email(files["METADATA"])
    unknown = [*unparsed, *(set(raw) - _HANDLED - _OURS)]
    if "license" in raw and raw["license"] not in _SPDX:
        unknown.append("license")
    if unknown:
        raise PatchQueueError(f"upstream's METADATA has fields that would be lost: {unknown}. Teach {__name__} first.")
    _compare_licences(line, files, raw.get("license_files", []))
    dependencies, extras = _requirements(raw.get("requires_dist", []), raw.get("provides_extra", []))
    for extra, requires in line.extras:
        if extra in extras:
            raise PatchQueueError(f"upstream has an extra {extra!r}: take ours out of pyproject.toml, or rename it.")
        extras[extra] = list(requires)
    fields: dict[str, object] = {ours: raw[theirs] for theirs, ours in _COPIED.items() if theirs in raw}  # type: ignore[literal-required]
    if "license" in raw:
        fields["license"] = _SPDX[raw["license"]]
        # With an expression, classifiers that name the licence are an error of their own.
        fields["classifiers"] = [name for name in raw.get("classifiers", []) if not name.startswith("License ::")]
    return fields | {
        "version": f"{line.upstream[1]}+{line.local_version}",
        "authors": _people(raw.get("author_email", "")),
        "maintainers": _people(raw.get("maintainer_email", "")),
        "dependencies": dependencies,
        "optional-dependencies": extras,
    }


def _dist_info(line: Line) -> dict[str, bytes]:
    """The files of the wheel's dist-info folder; a kind that we would drop, such as entry points, is an error."""
    with zipfile.ZipFile(io.BytesIO(upstream_wheel(line))) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist() if not name.startswith(f"{PACKAGE}/")}
    dist_info = {name.partition(".dist-info/")[2]: data for name, data in files.items()}
    unknown = [name for name in files if not _DIST_INFO.fullmatch(name.partition(".dist-info/")[2])]
    if unknown:
        raise PatchQueueError(f"upstream's wheel holds what the fork would drop: {unknown}. Teach {__name__} first.")
    return dist_info


def _compare_licences(line: Line, files: dict[str, bytes], names: list[str]) -> None:
    """Upstream's licence files lie beside the pyproject.toml, as they came, where hatchling takes them from."""
    for name in names:
        kept = line.root / name
        if not kept.is_file() or kept.read_bytes() != files.get(f"licenses/{name}", files.get(name)):
            raise PatchQueueError(f"{kept} must be upstream's licence file, byte for byte: copy it from the wheel.")


def _people(addresses: str) -> list[dict[str, str]]:
    return [{"name": name, "email": address} for name, address in email.utils.getaddresses([addresses])]


def _requirements(requires: list[str], extras: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Split upstream's requirements into those always needed and those of each extra."""
    dependencies: list[str] = []
    optional: dict[str, list[str]] = {extra: [] for extra in extras}
    for text in requires:
        requirement = Requirement(text)
        marker = str(requirement.marker or "")
        extra = re.fullmatch(r'extra == "([^"]+)"', marker)
        if extra:
            requirement.marker = None
            optional[extra[1]].append(str(requirement))
        elif "extra" in marker:
            raise PatchQueueError(
                f"upstream requires {text!r}: a marker with an extra and more cannot be carried over."
            )
        else:
            dependencies.append(text)
    return dependencies, optional
