"""The terminal's way to an order report: files and flags in, a table, JSON or pictures out.

Exit status: 0 if a report was made; 2 with one message on standard error if the data or the arguments cannot make one.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from sentence_transformers.base.sampler import BatchSamplers, MultiDatasetBatchSamplers
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import nn

from sentence_transformers.base.report import OrderReport, order_report

_BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_EXTRA = 'pip install "sentence-transformers[order]"'


class _Gathering(nn.Module):
    """A loss of which only this is known."""

    gather_across_devices = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the report that the command line asks for."""
    options = _parser().parse_args(arguments)
    try:
        _require_extras(options)
        report = _report(options)
    except (ValueError, ImportError, OSError) as error:
        print(f"order report: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(report.to_json())
    else:
        from rich.console import Console

        Console(highlight=False).print(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sentence_transformers.base.report",
        description="Report what the epochs of a training run hold, without training: rows used and sitting out, "
        "values twice in a batch or on several devices, and whether epochs differ.",
    )
    add = parser.add_argument
    add("data", nargs="+", type=Path, help="a csv, json, jsonl or parquet file, or a folder of save_to_disk; several")
    add("--columns", nargs="+", metavar="NAME", help="keep these columns, as the training does (all)")
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
    add("--column", metavar="NAME", help="with --pictures: the column whose values are shown (the first)")
    return parser


def _names(samplers: type[BatchSamplers | MultiDatasetBatchSamplers]) -> str:
    return ", ".join(one.value for one in samplers)


def _require_extras(options: argparse.Namespace) -> None:
    """Say what is missing before the data is read."""
    wanted = [("rich", "the table", "or use --json")] if not options.json else []
    wanted += [("matplotlib", "--pictures", "or leave it out")] if options.pictures else []
    for package, use, way_out in wanted:
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"{package} is missing, which {use} needs. Install it with\n  {_EXTRA}\n{way_out}.")


def _report(options: argparse.Namespace) -> OrderReport:
    dataset = _data(options.data, options.columns)
    if options.pictures is None:
        return order_report(dataset, _training_arguments(options), options.world_size, options.epochs, _loss(options))
    from sentence_transformers.base.report_pictures import Gallery

    gallery = Gallery(dataset, options.column)
    report = order_report(
        dataset, _training_arguments(options), options.world_size, options.epochs, _loss(options), watch=gallery.watch
    )
    for path in gallery.draw(options.pictures):
        print(f"drew {path}", file=sys.stderr)
    return report


def _loss(options: argparse.Namespace) -> nn.Module | None:
    return _Gathering() if options.gather_across_devices else None


def _data(paths: list[Path], columns: list[str] | None) -> Dataset | DatasetDict:
    """The dataset of one path, or those of several by the names of their files."""
    loaded = [_load(path) for path in paths]
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
        raise ValueError(
            f"{path} could not be read as {builder}: {reason}. Does it hold what its name says?"
        ) from cause


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
        if ":" in str(chosen.get(name)):
            chosen[name] = _own(chosen[name])
    sharing = {"split_batches": options.split_batches, "dispatch_batches": options.dispatch_batches}
    config = {**(chosen.get("accelerator_config") or {}), **{name: True for name, on in sharing.items() if on}}
    chosen |= {"accelerator_config": config, "output_dir": "unused", "use_cpu": True, "report_to": "none"}
    if chosen.get("per_device_train_batch_size", 1) < 1:
        raise ValueError(f"A batch of {chosen['per_device_train_batch_size']} rows holds nothing: ask for 1 or more.")
    try:
        return SentenceTransformerTrainingArguments(**chosen)
    except TypeError as cause:
        raise ValueError(f"{options.args}: {cause}. Use the names of the training arguments.") from cause


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
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        raise ValueError(f"{name} could not be imported: {cause}. Write module:name, as seen from here.") from cause
    finally:
        sys.path.pop(0)
