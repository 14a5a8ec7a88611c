"""Find a checkpoint to resume from where a process may have been killed while one was saved.

The main process writes ``trainer_state.json`` last, so a checkpoint without it, or with a part of it, is incomplete.
So is one with a file that the process reads and that was cut off. A missing file of random states is no fault: a run
resumes without. Only the state, the headers of weights and the ends of archives are read.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.training_args import ParallelMode, TrainingArguments

logger = logging.getLogger(__name__)


def find_checkpoint(resume_from_checkpoint: str | bool | None, args: TrainingArguments) -> str | bool | None:
    """
    The checkpoint to resume from: for ``True``, the newest that is complete for each process in its ``output_dir``.

    Raises:
        ValueError: On every process, if the given checkpoint, or each there is, is incomplete for one of them.
    """
    if resume_from_checkpoint is None or resume_from_checkpoint is False:
        return resume_from_checkpoint
    if resume_from_checkpoint is not True:
        if fault := _gather_fault(Path(resume_from_checkpoint), args):
            raise ValueError(
                f"The checkpoint {resume_from_checkpoint} is incomplete: {fault}. Pass the path of a complete one, or "
                "`resume_from_checkpoint=True` for the newest complete one in `output_dir`."
            )
        return resume_from_checkpoint
    names = _gather([path.name for _, path in reversed(_checkpoints(args.output_dir))], args)[0]
    for name in names:
        checkpoint = Path(args.output_dir, name)
        if not (fault := _gather_fault(checkpoint, args)):
            return str(checkpoint)
        if args.process_index == 0:
            logger.warning(f"Not resuming from the checkpoint {checkpoint}, which is incomplete: {fault}.")
    if names:
        raise ValueError(
            f"Every checkpoint in {args.output_dir} is incomplete: {', '.join(names)}. Train without "
            "`resume_from_checkpoint` to start anew, or pass the path of a complete one."
        )
    return True  # transformers reports that there is none


def remove_incomplete_checkpoints(output_dir: str, global_step: int) -> None:
    """Remove the checkpoints beyond ``global_step`` whose state an earlier run did not finish."""
    for step, checkpoint in _checkpoints(output_dir):
        if step > global_step and _state_fault(checkpoint):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _checkpoints(output_dir: str) -> list[tuple[int, Path]]:
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if path.is_dir()]
    return sorted((int(path.name[11:]), path) for path in folders if re.fullmatch(r"\d+", path.name[11:]))


def _gather(value: object, args: TrainingArguments) -> list:
    """The values of all processes. On XLA, which cannot gather objects, each process decides for itself."""
    if args.parallel_mode != ParallelMode.DISTRIBUTED:
        return [value]
    from accelerate.utils import gather_object

    return gather_object([value])


def _gather_fault(checkpoint: Path, args: TrainingArguments) -> str | None:
    rng_state = "rng_state.pth" if args.world_size <= 1 else f"rng_state_{args.process_index}.pth"
    archives = [checkpoint / name for name in (OPTIMIZER_NAME, SCHEDULER_NAME, SCALER_NAME, rng_state)]
    cut_off = [path for path in [*archives, *checkpoint.rglob("*.safetensors")] if _is_cut_off(path)]
    fault = _state_fault(checkpoint) or (f"{cut_off[0].relative_to(checkpoint)} is cut off" if cut_off else None)
    return next(filter(None, _gather(fault, args)), None)


def _state_fault(checkpoint: Path) -> str | None:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text("utf-8"))
    except FileNotFoundError:
        return f"it has no {TRAINER_STATE_NAME}, which is written last"
    except ValueError:
        return f"{TRAINER_STATE_NAME} is cut off"
    return None


def _is_cut_off(path: Path) -> bool:
    """Whether a file of weights, or an archive of ``torch.save``, is shorter than written. Other formats are not."""
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):  # compares the length of the file with its header
                return False
        except SafetensorError:
            return True
    with path.open("rb") as file:
        head = file.read(2)
    return b"PK".startswith(head) and not zipfile.is_zipfile(path)
