"""The demo: train on two processes, kill them in epoch 2, resume, and see whether the order of rows survived.

    python examples/demo.py --pristine build/pristine

`--pristine` is a folder that holds sentence-transformers as released (`pip install --no-deps --target`); what is
compared with it is the sentence-transformers of the running interpreter. Exit status 0: every promise held.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

from launch import ChildFailed, environment, kill_tree, running, torchrun, watch
from order import Record, read_record
from pairs import split
from picture import draw
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from tables import Stack, accuracy_table, check_table, order_table

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "build" / "demo"
MARK = "made-by-the-demo"

WORLD, BATCH, EPOCHS, PER_EPOCH = 2, 16, 3, 32
SPARE = 14  # rows that sit out each epoch, so that the sampler need not fill its last batch with rows seen before
PAIRS, HELD_OUT = PER_EPOCH * WORLD * BATCH + SPARE, 512
STEPS, CHECKPOINT = EPOCHS * PER_EPOCH, PER_EPOCH + PER_EPOCH // 2
KILLED, SEED = CHECKPOINT + 7, 42


class Stage:
    """One child process, its folder, and its line in the progress display."""

    def __init__(self, progress: Progress, name: str, title: str, total: int) -> None:
        self.folder = OUTPUT / name
        self.log = self.folder / "output.txt"
        self.progress = progress
        self.task = progress.add_task(title, total=total, start=False, state="waiting")

    def steps(self) -> int:
        """Steps that rank 0 has written down so far; the display follows."""
        records = self.folder.glob("record/**/rank0.jsonl")
        done = sum(path.read_text(encoding="utf-8").count('"step"') for path in records)
        if done:
            self.progress.update(self.task, completed=done, state="running")
        return done

    def run(self, arguments: list[str], first_on_path: Path | None = None, kill_at: int | None = None) -> None:
        """Run `recorder.py` with `arguments` to its end, or SIGKILL it as soon as it is at step `kill_at`."""
        sizes = {
            "pairs": PAIRS,
            "held-out": HELD_OUT,
            "epochs": EPOCHS,
            "batch-size": BATCH,
            "save-steps": CHECKPOINT,
            "seed": SEED,
        }
        common = [f"--{name}={size}" for name, size in sizes.items()]
        command = torchrun(
            HERE / "recorder.py", [*common, "--cpu", f"--record={self.folder / 'record'}", *arguments], WORLD
        )
        self.progress.start_task(self.task)
        self.progress.update(self.task, state="starting")
        with running(command, environment(WORLD, first_on_path), self.log) as process:
            watch(process, self.log, self.steps, stop_at=kill_at)
            if kill_at is not None:
                kill_tree(process)
        self.progress.update(self.task, state="done" if kill_at is None else f"[bold]killed at step {self.steps()}[/]")
        self.progress.stop_task(self.task)

    def record(self, part: str = "") -> Record:
        return read_record(self.folder / "record" / part, WORLD)


def prepare_output() -> None:
    """Empty the demo's own folder; refuse to touch one that no earlier demo made."""
    foreign = OUTPUT.is_dir() and any(OUTPUT.iterdir()) and not (OUTPUT / MARK).is_file()
    if foreign or OUTPUT.is_symlink() or OUTPUT.is_file():
        raise SystemExit(f"{OUTPUT} was not made by an earlier demo. Move it away and start the demo again.")
    if OUTPUT.exists():
        shutil.rmtree(OUTPUT)
    OUTPUT.mkdir(parents=True)
    (OUTPUT / MARK).touch()


def run_stages(console: Console, pristine: Path) -> tuple[Stack, Stack]:
    """Run the four child processes one after the other: the pristine stack's order, and this one's."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[state]}"), TimeElapsedColumn(), console=console) as progress:
        dry = 2 * STEPS - CHECKPOINT
        released = Stage(progress, "pristine", "As released: its order, in a dry pass", dry)
        planned = Stage(progress, "plan", "Installed here: its plan, in a dry pass", dry)
        first = Stage(progress, "interrupted", "Installed here: trains until it is killed", KILLED)
        second = Stage(progress, "resumed", "Installed here: resumes and finishes", STEPS - CHECKPOINT)
        released.run(["--dry", f"--output={released.folder / 'checkpoints'}"], first_on_path=pristine)
        planned.run(["--dry", f"--output={planned.folder / 'checkpoints'}"])
        first.run([f"--output={OUTPUT / 'model'}"], kill_at=KILLED)
        second.run([f"--output={OUTPUT / 'model'}", "--resume"])
    for stage in (released, planned):
        shutil.rmtree(stage.folder / "checkpoints")  # models that were never trained; their records are what counts
    plan = released.record("whole")
    return Stack(plan, plan, released.record("resumed")), Stack(
        planned.record("whole"), first.record(), second.record()
    )


def validate(old: Stack, new: Stack, pristine: Path) -> None:
    """The comparison means something only if the right packages ran and both resumed where they should have."""
    if not old.plan.package.is_relative_to(pristine) or new.plan.package.is_relative_to(pristine):
        raise ChildFailed(
            f"The packages were mixed up: {old.plan.package} ran as pristine, {new.plan.package} as ours."
        )
    for stack in (old, new):
        if stack.plan.max_steps != STEPS or min(stack.after.order) != CHECKPOINT:
            raise ChildFailed(
                f"{stack.plan.version} planned {stack.plan.max_steps} steps and resumed at step "
                f"{min(stack.after.order)}; the demo counts on {STEPS} and {CHECKPOINT}."
            )


def report(console: Console, old: Stack, new: Stack) -> bool:
    """Print the comparison, draw the picture, and return whether every promise held for the installed stack."""
    texts, held_out = split(PAIRS, HELD_OUT, SEED)
    console.print(order_table([old, new], PER_EPOCH, texts))
    console.print(check_table([old, new], PER_EPOCH, PAIRS))
    queries, names = len({localized for _, localized in held_out}), len({english for english, _ in texts + held_out})
    console.print(accuracy_table(new))
    console.print(f"[dim]{queries} translations that training never saw look for their name among {names}.[/]\n")
    picture = OUTPUT / "order.png"
    draw({stack.title: (stack.plan.order, stack.order) for stack in (old, new)}, CHECKPOINT, PER_EPOCH, picture)
    console.print(f"The picture of both orders: [bold]{picture.relative_to(HERE.parent)}[/]", soft_wrap=True)
    broken = [check for check in new.checks(PER_EPOCH, PAIRS) if not check.held]
    for check in broken:
        console.print(f"[bold red]Not kept:[/] {check.promise} ({check.detail}).")
    return not broken


def headline(console: Console) -> None:
    """Say what is about to happen."""
    text = (
        f"MiniLM learns {PAIRS:,} translations (names of languages, countries, currencies) on {WORLD} CPU processes, "
        f"in {EPOCHS} epochs of {PER_EPOCH} steps. In epoch 2, at step {KILLED}, SIGKILL ends it; it is resumed "
        f"from the checkpoint of step {CHECKPOINT}. Does it go on with the order that it had begun?\n\n"
        "[dim]The released package's order, and the plan of the one installed here, are recorded in dry passes: the "
        "trainer, sampler and loaders are the real ones, only the model does not run. Then the training is real.[/]"
    )
    title = "[bold]One run, one order, crash or no crash[/]"
    console.print(Panel(text, title=title, title_align="left", width=min(console.width, 100)))


def main() -> int:
    parser = ArgumentParser(description="Train on two processes, kill them in epoch 2, resume, compare the orders.")
    parser.add_argument(
        "--pristine", type=Path, default=OUTPUT.parent / "pristine", help="sentence-transformers as released"
    )
    pristine = parser.parse_args().pristine.resolve()
    console = Console(highlight=False)
    if not (pristine / "sentence_transformers").is_dir():
        wanted = f"pip install --no-deps --target {pristine} sentence-transformers==6.2.0"
        console.print(
            f"The released package to compare with is missing. Put it there with:\n  {wanted}", soft_wrap=True
        )
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        prepare_output()
        headline(console)
        old, new = run_stages(console, pristine)
        validate(old, new, pristine)
        held = report(console, old, new)
    except ChildFailed as failure:
        console.print(f"[bold red]The demo could not be finished.[/] {escape(str(failure))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. All processes that the demo had started are ended.")
        return 130
    verdict = "[bold green]Every promise held[/]" if held else "[bold red]Not every promise held[/]"
    console.print(f"{verdict} for sentence-transformers {new.plan.version}; {time.monotonic() - started:.0f} seconds.")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
