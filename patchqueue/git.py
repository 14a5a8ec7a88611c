"""git and pip as subprocesses, and the one error of this package."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_PERSON = {"NAME": "patchqueue", "EMAIL": "patchqueue@localhost", "DATE": "2000-01-01T00:00:00Z"}


class PatchQueueError(Exception):
    """Something that cannot be built, exported or applied; the message says what was found and the way out."""


def run(command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command, its messages in English, its output as text that survives any byte."""
    env = {**env, "LC_ALL": "C", "LANGUAGE": "C"}
    try:
        return subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, encoding="utf-8", errors="surrogateescape"
        )
    except FileNotFoundError as error:  # everything else is run by the Python that runs this
        raise PatchQueueError(
            "git is missing, and git applies the patches: install it (apt-get install git)."
        ) from error


def git(tree: Path, *arguments: str, **committer: str) -> str:
    """Run git in `tree` alone: no user or system settings, no repository around it, a fixed committer or the given."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
    # Inside a folder that an outer repository ignores, git would do nothing and exit 0.
    env |= {"GIT_CEILING_DIRECTORIES": str(tree.parent.resolve())}
    env |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _PERSON.items()}
    # These two are read from ~/.config/git even when there is no global configuration file.
    unset = ["-c", f"core.attributesFile={os.devnull}", "-c", f"core.excludesFile={os.devnull}"]
    done = run(["git", *unset, *arguments], tree, env | committer)
    if done.returncode != 0:
        # Hints are for a person who goes on where git stopped.
        said = re.sub(r"^hint: .*\n", "", done.stderr or done.stdout, flags=re.MULTILINE).rstrip()
        raise PatchQueueError(f"git {' '.join(arguments[:2])} failed in {tree}:\n{said}")
    return done.stdout
