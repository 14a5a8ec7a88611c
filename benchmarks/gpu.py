"""Each fix, the planned sampler and the time of a step, in one go on one GPU; no network, at most 8 minutes.

`make gpu` makes the folder `build/gpu` and runs this script there. The folder holds all that the script needs beside
Python with torch, transformers, accelerate, datasets and scikit-learn (rich, for `conformance`, comes along): take it
to the machine with the GPU, and run `python gpu.py` in it. `--device cpu` tries the script itself, on a small model.

Checks are scenarios of `conformance` with real steps of MiniLM in bf16. Two ranks share the one device, by gloo with
CUDA tensors, as NCCL refuses that; NCCL runs with one rank. 08, 12, 13 and 18 are about files and errors, in which no
device has a part, and are left out. Each check runs in a process of its own, several at a time; the steps are timed
afterwards, alone. Exit status 1: a check failed. All readings go to `gpu.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STACKS = HERE / "stacks"
LIMIT = {"cuda": 150, "cpu": 600}  # seconds for one check
ARGUMENTS: dict[str, dict[str, Any]] = {"cuda": {"use_cpu": False, "bf16": True, "ddp_backend": "gloo"}, "cpu": {}}
ONE_RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
FSDP = {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}}


def on_first_device(build: Any, run: Any, arguments: dict[str, Any], dataset: Any) -> Any:
    """All ranks on one device: it is the local rank that chooses."""
    os.environ["LOCAL_RANK"] = "0"
    return build(run, arguments, dataset)


def with_nccl(build: Any, run: Any, arguments: dict[str, Any], dataset: Any) -> Any:
    """A process group of one rank."""
    os.environ.update(ONE_RANK)
    trainer = build(run, {**arguments, "ddp_backend": "nccl"}, dataset)
    trainer.model[0].auto_model.pooler.requires_grad_(False)  # it is never used, and FSDP has no state of it to load
    return trainer


def scenario(
    name: str, device: str, model: str, folder: Path, place: Any = None, weighed: bool = True, **changes: Any
) -> str:
    """What is wrong with a scenario of `conformance`, whole and resumed; an empty string if nothing is."""
    from conformance import runs
    from conformance.cells import NOT_APPLICABLE, RIGHT, WEIGHTS
    from conformance.matrix import judge
    from conformance.scenarios import BY_NAME

    one = BY_NAME[name]
    build = one.changes.get("trainer", runs.sentence_transformer_trainer)
    if place is None and one.world_size > 1 and device == "cuda":
        place = on_first_device
    settings = {**one.changes.get("arguments", {}), **ARGUMENTS[device], **changes}
    settings = {**one.changes, "trainer": partial(place, build) if place else build, "arguments": settings}
    wanted = [name for name in one.applicable() if weighed or name != WEIGHTS]
    row = judge(replace(one, changes=settings), model, folder, LIMIT[device], wanted)
    wrong = [f"{key}: {cell.state}, {cell.detail}" for key, cell in row.cells.items() if cell.state != RIGHT]
    skipped = all(cell.state == NOT_APPLICABLE for cell in row.cells.values())
    return "not run: " + next(iter(row.cells.values())).detail if skipped else "; ".join(wrong)


def evaluated(device: str, model: str, folder: Path) -> str:
    """Weights under DDP of a model that was evaluated first; its loss has parameters of its own."""
    from conformance import runs
    from conformance.cells import RIGHT
    from conformance.scenarios import BY_NAME
    from conformance.weights import judge_weights

    build = runs.sentence_transformer_trainer
    build = partial(on_first_device, build) if device == "cuda" else build
    ddp = replace(BY_NAME["ddp"], changes={"trainer": build, "arguments": ARGUMENTS[device]})
    cell = judge_weights(ddp, "evaluated", model, folder, limit=LIMIT[device])
    return "" if cell.state == RIGHT else f"{cell.state}, {cell.detail}"


def made_twice(device: str, model: str, folder: Path) -> str:
    """Each of two trainings begins with a new model under DDP, equal on both ranks at the end."""
    from conformance.launch import run_ranks

    ranks = run_ranks(2, _train_twice, device, model, str(folder), timeout=LIMIT[device])
    return "" if ranks[0] == ranks[1] else f"the ranks have other weights: {ranks}"


def _train_twice(device: str, model: str, folder: str) -> list[str]:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from conformance.runs import names
    from conformance.weights import digest
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    if device == "cuda":
        os.environ["LOCAL_RANK"] = "0"
    settings: dict[str, Any] = {"use_cpu": device == "cpu", **ARGUMENTS[device]}
    args = SentenceTransformerTrainingArguments(
        folder, num_train_epochs=1, save_strategy="no", report_to="none", disable_tqdm=True, **settings
    )
    trainer = SentenceTransformerTrainer(
        model_init=lambda: SentenceTransformer(model, device="cpu"),
        args=args,
        train_dataset=names(64),
        loss=MultipleNegativesRankingLoss,
    )
    after = []
    for _ in range(2):
        trainer.train()
        after.append(digest(trainer.model.parameters()))
    return after


def out_of_memory(device: str, model: str, folder: Path) -> str:
    """`auto_find_batch_size` where memory runs out in fact: of 4 GiB of the device, or of the address space."""
    from conformance.runs import Run, train

    rows, batch_size = 3000, 2048
    arguments = {"auto_find_batch_size": True, **ARGUMENTS[device]}
    run = Run(str(folder), model, (rows,), batch_size, 1, "batch_sampler", arguments=arguments, gradients=True)
    if device == "cuda":
        import torch

        torch.cuda.set_per_process_memory_fraction(4 * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    else:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, resource.RLIM_INFINITY))
        run = replace(run, trainer=hungry_trainer)
    sizes = [len(batch) for batch in train(run)]
    if sizes[0] != batch_size or sizes[-1] == batch_size:
        return f"memory did not run out: batches of {sizes}"
    found = sizes[next(at for at in range(len(sizes)) if sum(sizes[at:]) <= rows) :]
    print(f"batches of {sizes}", file=sys.stderr)
    return "" if sum(found) == rows and len(set(found[:-1])) == 1 else f"{rows} rows came in batches of {found}"


def hungry_trainer(run: Any, arguments: dict[str, Any], dataset: Any) -> Any:
    """Asks, for its loss, for 1 MiB of memory a row: the small model itself needs next to none."""
    import torch

    from conformance.runs import sentence_transformer_trainer

    trainer = sentence_transformer_trainer(run, arguments, dataset)
    loss = trainer.compute_loss

    def compute_loss(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        torch.empty(len(inputs["label"]), 2**20, dtype=torch.uint8)
        return loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    return trainer


Check = Callable[[str, str, Path], str]
CHECKS: dict[str, Check] = {
    "01, 16, 17: DDP": partial(scenario, "ddp"),
    "02: dispatched tensors": partial(scenario, "dispatch"),
    "02, 11: dispatched texts": partial(scenario, "dispatch-texts"),
    "03: seeds differ": partial(scenario, "default-seeds"),
    "04: several datasets": partial(scenario, "proportional"),
    "05: cross-encoder": partial(scenario, "cross-encoder"),
    "06: memory runs out": out_of_memory,
    "09: stream on two ranks": partial(scenario, "iterable-ddp"),
    "10: stateful loader": partial(scenario, "stateful-workers"),
    "15: evaluated first": evaluated,
    "19: model_init": made_twice,
    "planned": partial(scenario, "planned"),
    "planned, frequent texts": partial(scenario, "frequent-planned"),
    "14: planned, dispatched": partial(scenario, "planned-dispatch"),
}
ON_CUDA: dict[str, Check] = {
    "01: NCCL, one rank": partial(scenario, "single", place=with_nccl),
    "07: FSDP, one rank": partial(scenario, "single", place=with_nccl, weighed=False, **FSDP),
}


def step_times(device: str, model: str, folder: Path) -> list[float]:
    """Seconds of each step but the first, of one process."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from conformance.runs import names
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    class Clock(TrainerCallback):
        ends: list[float] = []  # noqa: RUF012

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    trained = SentenceTransformer(model, device="cpu")
    settings: dict[str, Any] = {"use_cpu": device == "cpu", **ARGUMENTS[device]}
    args = SentenceTransformerTrainingArguments(
        str(folder), max_steps=60, per_device_train_batch_size=64, save_strategy="no", report_to="none", **settings
    )
    loss = MultipleNegativesRankingLoss(trained)
    SentenceTransformerTrainer(trained, args, train_dataset=names(3000), loss=loss, callbacks=[Clock()]).train()
    return [end - start for start, end in zip(Clock.ends, Clock.ends[1:])]


def inside(name: str, device: str) -> None:
    """One check, or the times of steps, in this process; the last line of what is printed is the reading."""
    from transformers.utils.logging import disable_progress_bar

    from conformance.runs import MINILM, small_model

    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        model = str(MINILM) if device == "cuda" else small_model(Path(folder, "model"))
        work: Any = step_times if name == "steps" else {**CHECKS, **ON_CUDA}[name]
        found = work(device, model, Path(folder, "runs"))
    print(json.dumps(found))


def unpack() -> None:
    """Lay the wheels out as folders for PYTHONPATH: the two stacks, and what both need."""
    shutil.rmtree(STACKS, ignore_errors=True)
    for wheel in sorted((HERE / "wheels").glob("*.whl")):
        ours = wheel.name.startswith("sentence_transformers-")
        stack = ("fork" if "+" in wheel.name else "release") if ours else "common"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(STACKS / stack)


def child(name: str, device: str, stack: str = "fork") -> Any:
    """The reading of a check in a process of its own; its error is a reading, too."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join(map(str, (STACKS / stack, STACKS / "common", HERE)))
    environment = {
        **os.environ,
        **threads,
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    limit = 2 * LIMIT[device]
    command = [sys.executable, str(HERE / "gpu.py"), "--device", device, "--inside", name]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no end after {limit} s"
    if done.returncode:
        return "; ".join(done.stderr.strip().splitlines()[-3:]) or f"status {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--jobs", type=int, help="checks at a time; by default 5 on a GPU, 1 on a CPU")
    parser.add_argument("--inside", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.inside, options.device)
        return 0
    start, device = time.monotonic(), options.device
    unpack()
    names = [*CHECKS, *(ON_CUDA if device == "cuda" else [])]
    readings: dict[str, Any] = {"device": device}
    with ThreadPoolExecutor(options.jobs or (5 if device == "cuda" else 1)) as pool:
        for name, found in zip(names, pool.map(lambda name: child(name, device), names)):
            readings[name] = found
            print(f"{found or 'right':6} {name}", flush=True)
    for stack in ("release", "fork", "fork", "release"):
        found = child("steps", device, stack)
        times = f"{1000 * statistics.median(found[20:]):.2f} ms" if isinstance(found, list) else found
        readings.setdefault(f"step, {stack}", []).append(times)
        print(f"{times} a step of 64 rows, {stack}", flush=True)
    readings["seconds"] = round(time.monotonic() - start)
    (HERE / "gpu.json").write_text(json.dumps(readings, indent=2) + "\n", encoding="utf-8")
    print(f"{readings['seconds']} seconds on {device}")
    return int(any(readings[name] and not readings[name].startswith("not run") for name in names))


if __name__ == "__main__":
    sys.exit(main())
