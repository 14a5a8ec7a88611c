"""``python -m conformance``: print the matrix of the installed stack.

Exit status: 0 all right, 1 something wrong, 2 it could not run.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.stack import installed, missing

if TYPE_CHECKING:
    from conformance.scenarios import Scenario


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "command", nargs="?", choices=("run", "readme"), default="run", help="readme: rewrite its table"
    )
    parser.add_argument("--scenario", action="append", metavar="NAME", help="run this one; may be given several times")
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every cell with its details to a file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--store", action="store_true", help="keep the results, for the README's table")
    parser.add_argument("--limit", type=float, default=120.0, metavar="SECONDS", help="for each scenario (120)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "readme":
        return _readme()
    if lacking := missing():
        print(f"The suite cannot run: pip install {' '.join(lacking)}", file=sys.stderr)
        return 2
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    try:
        from conformance.scenarios import BY_NAME as by_name
    except ImportError as error:
        print(f"The suite cannot run: {error}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{name:18}  {scenario.title}" for name, scenario in by_name.items()))
        return 0
    unknown = [name for name in options.scenario or () if name not in by_name]
    if unknown:
        near = difflib.get_close_matches(unknown[0], by_name)
        parser.error(f"no scenario is named {unknown[0]!r}{f', but {near[0]!r} is' if near else ''}; see --list")
    return _run(options, [by_name[name] for name in options.scenario or by_name])


def _readme() -> int:
    from conformance.results import update_readme

    print(
        "The README's table was rewritten." if update_readme() else "The README's table is as the stored results say."
    )
    return 0


def _run(options: argparse.Namespace, scenarios: Sequence[Scenario]) -> int:
    from rich.console import Console
    from transformers.utils.logging import disable_progress_bar

    from conformance import results, terminal
    from conformance.runs import small_model
    from conformance.scenarios import BY_NAME

    disable_progress_bar()  # type: ignore[no-untyped-call]
    console = Console(stderr=options.markdown)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        model = small_model(Path(folder, "model"))
        rows = terminal.run(scenarios, model, Path(folder), options.limit, console)
    found = results.Results(installed(), tuple(rows), time.monotonic() - start)
    terminal.show(found, console)
    if options.markdown:
        print(results.markdown(found))
    if options.json:
        options.json.write_text(found.to_json(), "utf-8")
    if options.store:
        console.print(f"Kept in conformance/results/{results.store(found, tuple(BY_NAME)).name}.")
    return found.status()


if __name__ == "__main__":
    sys.exit(main())
