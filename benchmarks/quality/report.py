"""The report of the runs: what each arm reached, differences by seed with their intervals, and a plot of these."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from benchmarks.quality.arms import ARMS, BATCH, COMPARISONS, CORPUS, EPOCHS, HELD_OUT, NAMES, PER_EPOCH, ROWS, SEEDS
from benchmarks.quality.arms import WORLD as PROCESSES

RESULTS = Path(__file__).parents[1] / "results" / "quality.md"
FIGURES = {"accuracy": "accuracy@1", "mrr": "MRR"}
CONFIDENCE, POWER = 0.95, 0.8
Record = dict[str, Any]
TEXT = """# What the order of rows costs in quality

Written by `make bench-quality`; `benchmarks/quality/__init__.py` has the design, which was there before the runs.
MiniLM learns names: {sizes}
On CPU with gloo: {packages}; the release is sentence-transformers 6.2.0.

{state}{differences}

![Differences with their intervals, and the differences of the seeds](quality.png)

A positive difference is in favour of what is named first. Intervals are of Student's t over pairs by seed, without a
correction for the number of comparisons. The last column is the smallest true difference that about four of five such
measurements would see: the sum of the two quantiles of t, times the standard error. In (d) equal epochs are equal
steps: `no_duplicates` draws rows again until it has made the steps that it promised.

{arms}

{whole}
"""


@dataclass(frozen=True)
class Difference:
    """Of pairs of runs, by seed: the mean, half of its interval, and what would be seen with the wanted power."""

    values: list[float]
    mean: float
    half: float
    seen: float


def difference(records: list[Record], one: str, other: str, figure: str) -> Difference | None:
    """`one` minus `other`, over the seeds that both have; None if these are fewer than three."""
    of = {name: {each["seed"]: each[figure] for each in records if each["arm"] == name} for name in (one, other)}
    values = [of[one][seed] - of[other][seed] for seed in sorted(of[one].keys() & of[other].keys())]
    if len(values) < 3:
        return None
    degrees, error = len(values) - 1, stdev(values) / math.sqrt(len(values))
    bound, power = (float(stats.t.ppf(share, degrees)) for share in ((1 + CONFIDENCE) / 2, POWER))
    return Difference(values, mean(values), bound * error, (bound + power) * error)


def table_of_arms(records: list[Record]) -> list[str]:
    """A line for each arm: means over its seeds."""
    heads = ["", "arm", "seeds", "steps", "accuracy@1", "MRR", f"orders in {EPOCHS} epochs"]
    heads += ["rows of an epoch seen twice or more", "never", "rows beside a false negative"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for arm in ARMS:
        own = [record for record in records if record["arm"] == arm.name]
        if not own:
            continue
        average = {key: mean(record[key] for record in own) for key in own[0] if key != "arm"}
        cells = [arm.name[0] if arm.trained else "", arm.label, str(len(own)), f"{average['steps']:.0f}"]
        cells += [f"{average['accuracy']:.2%}", f"{average['mrr']:.4f}"]
        if arm.trained:
            cells += [f"{average['orders']:.0f}"]
            cells += [f"{average[key]:.1%}" for key in ("twice", "never", "false negatives")]
        lines.append(f"| {' | '.join(cells + [''] * (len(heads) - len(cells)))} |")
    return lines


def table_of_differences(records: list[Record]) -> list[str]:
    """A line for each comparison and figure, in points of a hundred."""
    heads = ["comparison", "figure", "seeds", "difference, points", "95 % interval", "differs from 0"]
    heads += ["seen with 80 % power from, points"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, (one, other) in COMPARISONS.items():
        for figure, title in FIGURES.items():
            found = difference(records, one, other, figure)
            if found is None:
                continue
            low, high = found.mean - found.half, found.mean + found.half
            cells = [name, title, str(len(found.values)), f"{100 * found.mean:+.2f}"]
            cells += [f"{100 * low:+.2f} to {100 * high:+.2f}", "no" if low <= 0 <= high else "yes"]
            lines.append(f"| {' | '.join([*cells, f'{100 * found.seen:.2f}'])} |")
    return lines


def whole_or_resumed(records: list[Record]) -> str:
    """Whether the fork's preempted run is the one that was not preempted."""
    by_arm = {record["arm"]: record for record in records if record["seed"] == SEEDS[0]}
    if not {"b-fork", "b-whole"} <= by_arm.keys():
        return ""
    same = all(by_arm["b-fork"][figure] == by_arm["b-whole"][figure] for figure in FIGURES)
    return (
        f"Preempted {EPOCHS} times, the fork's run with seed {SEEDS[0]} ended with "
        f"{'exactly the same' if same else 'other'} accuracy and MRR {'as' if same else 'than'} the run that was not."
    )


def plot(records: list[Record], path: Path) -> None:
    """Each difference with its interval, and the differences of the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(FIGURES), figsize=(11, 3.6), sharey=True)
    for panel, (key, title) in zip(panels, FIGURES.items()):
        for place, (one, other) in enumerate(COMPARISONS.values()):
            found = difference(records, one, other, key)
            if found is None:
                continue
            panel.plot([100 * value for value in found.values], [place] * len(found.values), "o", color="0.75", ms=4)
            panel.errorbar(100 * found.mean, place, xerr=100 * found.half, fmt="D", color="C0", capsize=4)
        panel.axvline(0, color="0.4", linewidth=0.8)
        panel.set_title(f"{title}, difference in points")
        panel.set_yticks(range(len(COMPARISONS)), [name.replace("`", "") for name in COMPARISONS])
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def write(records: list[Record]) -> None:
    """Write the report, the plot and the runs themselves beside each other."""
    records = sorted((each for each in records if each["seed"] in SEEDS), key=lambda each: (each["seed"], each["arm"]))
    stack = ("sentence-transformers", "transformers", "accelerate", "torch")
    wanted = sum(arm.seeds for arm in ARMS)
    text = TEXT.format(
        state="" if len(records) == wanted else f"**Not finished: {len(records)} of {wanted} runs were made.**\n\n",
        sizes=f"{ROWS} translations of {NAMES} English names, {EPOCHS} epochs of {PER_EPOCH} steps of "
        f"{PROCESSES} × {BATCH} rows.\n{NAMES * HELD_OUT} held-out translations then look for their name "
        f"among {CORPUS}.",
        packages=", ".join(f"{name} {version(name)}" for name in stack),
        differences="\n".join(table_of_differences(records)),
        arms="\n".join(table_of_arms(records)),
        whole=whole_or_resumed(records),
    )
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")
    runs = ",\n".join(json.dumps(record) for record in records)
    RESULTS.with_suffix(".json").write_text(f"[\n{runs}\n]\n", encoding="utf-8")
    plot(records, RESULTS.with_suffix(".png"))
    print(text)
