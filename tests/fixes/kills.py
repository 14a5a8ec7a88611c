"""Runs that are killed at any moment, saving included, and resumed by the same command.

    python -m tests.fixes.kills 50        # so many runs in each launch mode; prints what differs

A rank counts the Python calls that it makes while it trains or saves, and is killed by SIGKILL after so many of them.
Where the other rank then is, is up to the scheduler; that it may still end a save is part of the case.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, Steps, continued, small_model, train

MODES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "split_batches": {"accelerator": {"split_batches": True}, "batch_size": 16},
    "dispatch_batches": {"accelerator": {"dispatch_batches": True}},
}
SAVE_STEPS = 3


def run_of(folder: Path, model: str, mode: str, **arguments: Any) -> Run:
    """12 steps in two epochs, with a checkpoint every three, of which two are kept."""
    saving = {"save_strategy": "steps", "save_steps": SAVE_STEPS, "save_total_limit": 2, **arguments}
    return replace(Run(str(folder), model, rows=(96,), epochs=2), arguments=saving, **MODES[mode])


class _Calls:
    """Counts the Python calls of this process, and ends it after so many."""

    def __init__(self, last: int) -> None:
        self.last = last

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        self.last -= event == "call"
        if not self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_trainer(victims: tuple[int, ...], calls: int, saving: bool, run: Run, *rest: Any) -> Any:
    """The usual trainer; the ranks named are killed, after so many calls of training, or of saving."""
    trainer = runs.sentence_transformer_trainer(run, *rest)
    if trainer.args.process_index in victims:
        counter = _Calls(calls)
        name = "_save_checkpoint" if saving else "_inner_training_loop"
        method = getattr(trainer, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            sys.setprofile(counter)
            try:
                return method(*args, **kwargs)
            finally:
                sys.setprofile(None)

        setattr(trainer, name, counted)
    return trainer


Launch = Callable[..., list[Any]]
"""Like ``run_ranks``; a test on two hosts has its own."""


def cut_short(run: Run, seed: int, launch: Launch) -> str:
    """Train until a rank is killed; what is said of it. The seed decides which rank, and when."""
    rng = random.Random(seed)
    victims = rng.choice([(0,), (1,), (0, 1)])
    saving = rng.random() < 0.7
    # To save four checkpoints takes the main process 49,000 calls, to train 110,000; another one 9,000 and 50,000
    main, other = (49_000, 9_000) if saving else (110_000, 50_000)
    calls = rng.randrange(other if victims == (1,) else main)
    killed = replace(run, trainer=partial(killed_trainer, victims, calls + 1, saving))
    try:
        launch(2, train, killed)
    except RankFailed as failure:
        return f"ranks {victims} killed after {calls} calls of {'saving' if saving else 'training'}; {failure}"
    raise RuntimeError(f"no rank was killed: none of {victims} makes {calls} calls any more")


def is_whole(checkpoint: Path) -> bool:
    """Whether both ranks finished their files: the state, and the random states, which are archives."""
    random_states = checkpoint.glob("rng_state_*.pth")
    return (checkpoint / "trainer_state.json").is_file() and all(map(zipfile.is_zipfile, random_states))


def resumed(run: Run, launch: Launch = run_ranks) -> list[Steps] | str:
    """The rows of the run that goes on from the last checkpoint, or what it fails with."""
    try:
        return launch(2, train, continued(run))
    except RankFailed as failure:
        return str(failure)


def differs(mode: str, model: str, whole: list[Steps], seed: int, launch: Launch = run_ranks) -> str:
    """What is wrong with a run that was killed and resumed; an empty string if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(Path(folder), model, mode)
        how = cut_short(run, seed, launch)
        left = sorted(path.name for path in Path(folder).glob("checkpoint-*"))
        if not left:
            return ""
        some_whole = any(map(is_whole, Path(folder).glob("checkpoint-*")))
        after = resumed(run, launch)
        if not some_whole:
            expected = isinstance(after, str) and f"Every checkpoint in {folder} is incomplete: checkpoint-" in after
            return "" if expected else f"{how[:200]}; left {left}, not whole; resumed nevertheless: {after[-400:]}"
        if isinstance(after, str):
            return f"{how[:200]} ({seed}); left {left}; the resume failed: {after[-400:]}"
        rest = [steps[len(steps) - len(others) :] for steps, others in zip(whole, after)]
        begun = {len(whole[0]) - len(others) for others in after}
        if after != rest or not begun <= set(range(SAVE_STEPS, 13, SAVE_STEPS)):
            return f"{how[:200]}; left {left}; other rows after step {begun}"
        print(f"  {mode}, {seed}: {how.splitlines()[0][:90]}; left {', '.join(left)}; went on after step {begun}")
    return ""


def main(times: int = 50) -> int:
    """The command line."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        model = small_model(Path(folder, "model"))
        for mode in MODES:
            whole = run_ranks(2, train, run_of(Path(folder, mode), model, mode))
            faults = [differs(mode, model, whole, seed) for seed in range(times)]
            failed += sum(map(bool, faults))
            print(f"{mode}: {times - sum(map(bool, faults))} of {times}", *filter(None, faults), sep="\n", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
