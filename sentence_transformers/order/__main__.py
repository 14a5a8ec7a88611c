"""The terminal's way to an order report: files and flags in, a table, JSON or pictures out.

Exit status: 0 if a report was made; 2 with one message on standard error if the data or the arguments cannot make one.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from sentence_transformers.base.sampler import BatchSamplers, MultiDatasetBatchSamplers
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import nn

from sentence_transformers.order.report import OrderReport, order_report
from sentence_transformers.order.table import render

if TYPE_CHECKING:
    from sentence_transformers.order.gallery import Gallery

_HELD_OUT = {"validation", "valid", "val", "dev", "test", "eval", "evaluation"}  # splits that are not trained on
_BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


class _Gathering(nn.Module):
    """A loss of which only this is known."""

    gather_across_devices = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the report that the command line asks for."""
    options = _parser().parse_args(arguments)
    try:
        _require_extras(options)
        dataset = _data(options.data, options.columns, options.split)
        gallery = _gallery(dataset, options) if options.pictures else None
        _print(_report(dataset, options, gallery), options.json)
        if gallery is not None:
            for path in gallery.draw(options.pictures):
                _say(f"drew {path}")
    except (ValueError, ImportError, OSError) as error:
        _say(f"order report: {error}")
        return 2
    return 0


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _print(report: OrderReport, as_json: bool) -> None:
    if as_json:
        print(report.to_json(), flush=True)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text = render(report, width)
    if width is None or importlib.util.find_spec("rich") is None:
        print(text, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    coloured = Text(text)
    coloured.highlight_regex(r"epoch \d+ again", "bold red")
    coloured.highlight_regex(r"(?m)^fingerprint.*$", "cyan")
    Console(width=width).print(coloured)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sentence_transformers.order",
        description="Report what the epochs of a training run hold, without training: rows used and left out, "
        "values twice in a batch or on several devices, and whether epochs differ.",
    )
    add = parser.add_argument
    add("data", nargs="+", type=Path, help="a csv, json, jsonl or parquet file, or a folder of save_to_disk; several")
    add("--columns", nargs="+", metavar="NAME", help="keep these columns, as the training does (all)")
    add(
        "--split",
        metavar="NAME",
        help="of a saved dataset of several splits (train, if the others are for evaluation)",
    )
    add("--args", type=Path, metavar="FILE", help="training arguments as a JSON object; flags go before it")
    add("--batch-sampler", metavar="NAME", help=f"{_names(BatchSamplers)}, or your own as module:name")
    add("--multi-dataset-batch-sampler", metavar="NAME", help=f"{_names(MultiDatasetBatchSamplers)}, or module:name")
    add("--batch-size", type=int, metavar="N", help="rows of one device's batch (8)")
    add("--world-size", type=int, default=1, metavar="N", help="number of processes (1)")
    add("--epochs", type=int, default=2, metavar="N", help="how many to look at (2)")
    add("--seed", type=int, help="as the training argument (42)")
    add("--data-seed", type=int, help="as the training argument")
    add(
        "--drop-last", action="store_true", help="leave out an unfilled last batch; under DDP always so if not planned"
    )
    add("--split-batches", action="store_true", help="accelerate's split_batches")
    add("--dispatch-batches", action="store_true", help="accelerate's dispatch_batches")
    add("--gather-across-devices", action="store_true", help="as if the loss gathers across devices")
    add("--json", action="store_true", help="print JSON in place of the table")
    add("--pictures", type=Path, metavar="FOLDER", help="draw the epochs into this folder, as PNG and SVG")
    add("--column", metavar="NAME", help="with --pictures: the column whose values are shown (the first that can be)")
    return parser


def _names(samplers: type[BatchSamplers | MultiDatasetBatchSamplers]) -> str:
    return ", ".join(one.value for one in samplers)


def _require_extras(options: argparse.Namespace) -> None:
    """Say what is missing before the data is read."""
    if options.pictures and importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "matplotlib is missing, which --pictures needs. Install it with\n"
            '  pip install "sentence-transformers[order]"\nor leave --pictures out.'
        )


def _gallery(dataset: Dataset | DatasetDict, options: argparse.Namespace) -> Gallery:
    """What keeps the epochs for the pictures; refuses what could not be drawn before any work is done."""
    from sentence_transformers.order.gallery import Gallery

    gallery = Gallery(dataset, options.column)
    folder: Path = options.pictures
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as cause:
        raise ValueError(f"{folder} is no folder, nor can it become one: name a new one for the pictures.") from cause
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} cannot be written to: name another folder for the pictures.")
    if gallery.column is None:
        _say("No column has values that can be told apart: there is no picture of them.")
    return gallery


def _report(dataset: Dataset | DatasetDict, options: argparse.Namespace, gallery: Gallery | None) -> OrderReport:
    args = _training_arguments(options)
    watch = None if gallery is None else gallery.watch
    samplers = (options.batch_sampler, options.multi_dataset_batch_sampler)
    own = [name for name in samplers if name is not None and ":" in name]
    try:
        return order_report(dataset, args, options.world_size, options.epochs, _loss(options), watch=watch)
    except Exception as cause:
        if not own or isinstance(cause, ImportError):
            raise
        where = traceback.extract_tb(cause.__traceback__)[-1]
        raise ValueError(
            f"{' and '.join(own)} made no epoch of batches: {type(cause).__name__}: {cause} ({where.filename}, line "
            f"{where.lineno}). Name what takes the trainer's arguments (dataset, batch_size, drop_last and more, by "
            "name) and yields lists of row numbers."
        ) from cause


def _loss(options: argparse.Namespace) -> nn.Module | None:
    return _Gathering() if options.gather_across_devices else None


def _data(paths: list[Path], columns: list[str] | None, split: str | None) -> Dataset | DatasetDict:
    """The dataset of one path, or those of several by the names of their files."""
    loaded = [_of_split(_load(path), split, path) for path in paths]
    if columns:
        loaded = [_select(one, columns, path) for one, path in zip(loaded, paths)]
    if len(loaded) == 1:
        return loaded[0]
    if any(isinstance(one, DatasetDict) for one in loaded) or len({path.stem for path in paths}) < len(paths):
        raise ValueError(
            f"{', '.join(map(str, paths))}: several datasets need files of one dataset and one name each."
        )
    return DatasetDict({path.stem: one for path, one in zip(paths, loaded)})


def _load(path: Path) -> Dataset | DatasetDict:
    if not path.exists():
        raise ValueError(f"{path} does not exist: name a file, or a folder that save_to_disk wrote.")
    if path.is_dir():
        try:
            return load_from_disk(path)
        except FileNotFoundError as cause:
            raise ValueError(f"{path} is no folder that save_to_disk wrote: save the dataset there first.") from cause
    builder = _BUILDERS.get(path.suffix.lower())
    if builder is None:
        raise ValueError(f"{path} is of no known kind: it must end in {', '.join(_BUILDERS)}, or be a folder.")
    more = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
    try:
        return load_dataset(builder, data_files=str(path), split="train", **more)
    except (DatasetsError, ValueError, OSError) as cause:
        reason = cause.__cause__ or cause
        if "corresponds to no data" in str(reason):
            raise ValueError(
                f"{path} holds no row: an epoch needs one or more. Is it the file that you mean?"
            ) from cause
        raise ValueError(
            f"{path} could not be read as {builder}: {reason}. Does it hold what its name says?"
        ) from cause


def _of_split(loaded: Dataset | DatasetDict, split: str | None, path: Path) -> Dataset | DatasetDict:
    """That split; of splits as for an evaluation, the one to train on; else all, which are datasets of one run."""
    names = list(loaded) if isinstance(loaded, DatasetDict) else []
    if split is not None:
        if split not in names:
            has = f"It has {', '.join(names)}" if names else "It is one dataset: leave --split out"
            raise ValueError(f"{path} has no split {split}. {has}.")
        return loaded[split]
    if "train" in names and _HELD_OUT.issuperset({*names} - {"train"}):
        _say(f"{path} has the splits {', '.join(names)}: looking at train. --split chooses another.")
        return loaded["train"]
    return loaded


def _select(dataset: Dataset | DatasetDict, columns: list[str], path: Path) -> Dataset | DatasetDict:
    for one in dataset.values() if isinstance(dataset, DatasetDict) else [dataset]:
        missing = [name for name in columns if name not in one.column_names]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}. It has {', '.join(one.column_names)}.")
    return dataset.select_columns(columns)


def _training_arguments(options: argparse.Namespace) -> SentenceTransformerTrainingArguments:
    """Those of the file, with what the flags say in their place."""
    chosen = _from_file(options.args) if options.args else {}
    flags = {
        "per_device_train_batch_size": options.batch_size,
        "batch_sampler": options.batch_sampler,
        "multi_dataset_batch_sampler": options.multi_dataset_batch_sampler,
        "seed": options.seed,
        "data_seed": options.data_seed,
        "dataloader_drop_last": options.drop_last or None,
    }
    chosen |= {name: value for name, value in flags.items() if value is not None}
    for name in ("batch_sampler", "multi_dataset_batch_sampler"):
        if ":" in chosen.get(name, ""):
            chosen[name] = _own(chosen[name])
    sharing = {"split_batches": options.split_batches, "dispatch_batches": options.dispatch_batches}
    config = {**chosen.get("accelerator_config", {}), **{name: True for name, on in sharing.items() if on}}
    chosen |= {"accelerator_config": config, "output_dir": "unused", "use_cpu": True, "report_to": "none"}
    if chosen.get("per_device_train_batch_size", 1) < 1:
        raise ValueError(f"A batch of {chosen['per_device_train_batch_size']} rows holds nothing: ask for 1 or more.")
    try:
        return SentenceTransformerTrainingArguments(**chosen)
    except TypeError as cause:
        raise ValueError(f"{options.args}: {cause}. Use the names and kinds of the training arguments.") from cause


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as cause:
        raise ValueError(f"{path} could not be read as JSON: {cause}. Write a JSON object into it.") from cause
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a JSON object of training arguments.")
    return found


def _own(name: str) -> Any:
    """A sampler of the user's: a class or function, by module and name."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        raise ValueError(f"{name} could not be imported: {cause}. Write module:name, as seen from here.") from cause
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise ValueError(f"{name} is a {type(found).__name__}: name a class or function that makes a batch sampler.")

    return found


if __name__ == "__main__":
    sys.exit(main())
