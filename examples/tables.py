"""What the demo prints: the two orders side by side, the promises, and the retrieval accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from order import Check, Order, Record, agreeing, joined, judge, rows_of
from pairs import Pair
from rich import box
from rich.table import Table
from rich.text import Text

from sentence_transformers.order import order_fingerprint

METRICS = {"accuracy@1": "right name first", "accuracy@5": "right name among the first five", "mrr@10": "MRR@10"}


@dataclass(frozen=True)
class Stack:
    """One sentence-transformers: what it reads when nothing happens, and what it read before and after the kill."""

    plan: Record
    before: Record
    after: Record

    @property
    def order(self) -> Order:
        return joined(self.before.order, self.after.order)

    @property
    def checkpoint(self) -> int:
        return min(self.after.order)

    @property
    def trained(self) -> bool:
        """A dry pass evaluates nothing."""
        return bool(self.after.metrics)

    @property
    def title(self) -> str:
        if self.trained:
            return f"Installed here, {self.plan.version} (trained)"
        return f"As released, {self.plan.version} (dry pass)"

    def checks(self, per_epoch: int, rows: int) -> list[Check]:
        checks = judge(self.plan.order, self.order, self.checkpoint, per_epoch, rows)
        if not self.trained:
            return checks
        done = range(max(self.before.order) + 1)
        same = agreeing(self.before.order, self.plan.order, done)
        first, last = metric(self.before, "accuracy@1"), metric(self.after, "accuracy@1")
        return [
            *checks,
            Check("Before the kill, all went as planned", same == len(done), f"{same} of {len(done)} steps"),
            Check("Retrieval becomes more accurate", last > first, f"{first:.1%} → {last:.1%}"),
        ]


def metric(record: Record, name: str) -> float:
    """The last evaluation's figure whose name ends in `name`."""
    return next(value for key, value in record.metrics[-1].items() if key.endswith(name))


def order_table(stacks: list[Stack], per_epoch: int, texts: list[Pair]) -> Table:
    """Half an epoch a line: what rank 0 read first in it, and a fingerprint of all that all ranks read in it."""
    table = _table("What was read when")
    table.add_column("Epoch, steps", no_wrap=True, min_width=12)
    for stack in stacks:
        table.add_column(stack.title, no_wrap=True, ratio=1)
    for start in range(0, len(stacks[0].order), per_epoch // 2):
        epoch, step = divmod(start, per_epoch)
        steps = range(start, start + per_epoch // 2)
        label = Text(f"{epoch + 1}, {step + 1} to {step + len(steps)}")
        label.append("\nresumed" if start == stacks[0].checkpoint else "\n", style="bold")
        table.add_row(label, *(_half_epoch(stack, steps, per_epoch, texts) for stack in stacks))
    return table


def _half_epoch(stack: Stack, steps: range, per_epoch: int, texts: list[Pair]) -> Text:
    rows = stack.order[steps.start][0]
    cell = Text(" → ".join(texts[rows[0]]) + "\n")
    cell.append(f"rows {' '.join(map(str, rows[:6]))} …\n", style="dim")
    mark = order_fingerprint(rows_of(stack.order, steps))
    cell.append(mark, style="cyan")
    for back in range(per_epoch, steps.start + 1, per_epoch):
        if mark == order_fingerprint(rows_of(stack.order, range(steps.start - back, steps.stop - back))):
            epoch = (steps.start - back) // per_epoch + 1
            return cell.append(f"  ✗ epoch {epoch} again", style="bold red")
    same = agreeing(stack.order, stack.plan.order, steps)
    if same == len(steps):
        return cell.append("  ✓ as planned", style="green")
    return cell.append(f"  ✗ {same} of {len(steps)} steps as planned", style="bold red")


def check_table(stacks: list[Stack], per_epoch: int, rows: int) -> Table:
    """One promise a line, and for each stack whether it held."""
    table = _table("What was promised")
    table.add_column("", no_wrap=True)
    for stack in stacks:
        table.add_column(stack.title)
    results = [{check.promise: check for check in stack.checks(per_epoch, rows)} for stack in stacks]
    for promise in dict.fromkeys(promise for checks in results for promise in checks):
        table.add_row(promise, *(_verdict(checks.get(promise)) for checks in results))
    return table


def _verdict(check: Check | None) -> Text:
    if check is None:
        return Text("no model ran", style="dim")
    return Text(f"{'✓' if check.held else '✗'} {check.detail}", style="green" if check.held else "bold red")


def accuracy_table(stack: Stack) -> Table:
    """How well held-out translations find their English name, before and after the training."""
    table = _table("Retrieval of held-out translations")
    table.add_column("", no_wrap=True)
    table.add_column("Before", justify="right")
    table.add_column("After", justify="right", style="bold")
    for name, explained in METRICS.items():
        table.add_row(explained, f"{metric(stack.before, name):.3f}", f"{metric(stack.after, name):.3f}")
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
