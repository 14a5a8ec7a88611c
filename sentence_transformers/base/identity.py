"""What an order of batches is made from, kept in a checkpoint.

Guarantee: :func:`read_identity` returns what :func:`write_identity` wrote, or says what is wrong with the file; the
file appears under its name complete.

Cost: one small file a checkpoint.
"""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sentence_transformers.base.sampler import DefaultBatchSampler

FILE = "order.json"
_VERSION = 1
_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {  # that JSON has for those of a field; for tuples, lists
    "int": (int,),
    "str": (str,),
    "int | None": (int, _NONE),
    "str | None": (str, _NONE),
}
_PLAIN = (str, int, float, bool, type(None))
# Compared by themselves, or by what follows from them: `drop_last` by the number of steps, and `epoch` by the place.
_NOT_SHOWN = ("dataset", "generator", "seed", "epoch", "drop_last", "batch_samplers")


class DamagedIdentity(ValueError):
    """The file that holds a checkpoint's order cannot be used."""


@dataclass(frozen=True)
class DataIdentity:
    """
    One dataset of a run.

    Args:
        name (str): Its name in a ``DatasetDict``, or its position.
        rows (int): Its number of rows.
        digest (str, optional): Of its contents; None where there is none.
    """

    name: str
    rows: int
    digest: str | None


@dataclass(frozen=True)
class OrderIdentity:
    """
    What decides the order of a run, and how far the run has come in it.

    Args:
        seed (int): Of the order: ``data_seed``, or ``seed``.
        epoch (int): The epoch under way, counted from 0.
        step (int): The number of batches that each process has taken of it.
        steps (int): The number of batches that each process takes in an epoch; 0 if it is not known.
        batch_size (int): The number of rows in a batch, over all processes.
        processes (int): The number of processes.
        sampler (str): What plans, with its arguments.
        datasets (tuple of DataIdentity): What is trained on; empty for a stream.
        rows (int): The number of rows taken of the epoch, over all processes.
        taken (str, optional): The digest of these rows; None if they were not seen.
        orders (tuple of str): The digests of the epochs before.
        accumulation (int, optional): The number of batches in an optimizer step; None if a file does not say.
    """

    seed: int
    epoch: int
    step: int
    steps: int
    batch_size: int
    processes: int
    sampler: str
    datasets: tuple[DataIdentity, ...]
    rows: int = 0
    taken: str | None = None
    orders: tuple[str, ...] = ()
    accumulation: int | None = None


def write_identity(folder: str | Path, identity: OrderIdentity) -> None:
    """
    Write ``order.json`` into a checkpoint's folder, which is made if need be.

    Raises:
        OSError: If it cannot be written.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=FILE, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"version": _VERSION, **asdict(identity)}, file, indent=2)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(Path(folder, FILE))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def read_identity(folder: str | Path) -> OrderIdentity | None:
    """
    Read the identity of a checkpoint's order.

    Returns:
        OrderIdentity: What was written; None if the checkpoint has none, as older ones.

    Raises:
        DamagedIdentity: If there is a file that cannot be read as one; the message says why.
    """
    path = Path(folder, FILE)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as cause:  # the last: brackets in brackets in brackets
        raise DamagedIdentity(f"{path} cannot be read: {cause}") from cause
    version = said.pop("version", None) if isinstance(said, dict) else None
    if version != _VERSION or isinstance(version, bool):
        raise DamagedIdentity(f"{path} is of format {version!r:.60}, and this package reads format {_VERSION}")
    try:
        return _identity(said)
    except (TypeError, KeyError) as cause:
        raise DamagedIdentity(f"{path} does not hold what it should: {cause}") from cause


def _identity(said: dict[str, Any]) -> OrderIdentity:
    said = _checked(OrderIdentity, {"accumulation": None, **said})
    datasets = tuple(DataIdentity(**_checked(DataIdentity, data)) for data in said["datasets"])
    if not all(isinstance(order, str) for order in said["orders"]):
        raise TypeError(f"orders is {said['orders']!r:.60}")
    return OrderIdentity(**{**said, "datasets": datasets, "orders": tuple(said["orders"])})


def _checked(cls: Any, said: Any) -> dict[str, Any]:
    """What was read for a class, if its values are of the types of its fields."""
    if not isinstance(said, dict):
        raise TypeError(f"a dataset is {said!r:.60}")
    for field in fields(cls):
        value = said[field.name]
        # By the type itself: True is no number here
        if type(value) not in _TYPES.get(str(field.type), (list,)):
            raise TypeError(f"{field.name} is {value!r:.60}")
    return said


def described(sampler: Any, *, of_many: bool = False) -> str:
    """
    A sampler with the arguments that decide its order, for messages and to compare.

    Of what its ``__init__`` takes, those are shown that it keeps under the same name, and that are plain values.
    The default sampler's batch size does not decide its order, unless it takes turns with others.

    Args:
        sampler: Plans the batches; None if nothing does.
        of_many (bool): Whether it is beneath a sampler of several datasets.
    """
    if sampler is None:
        return "none"
    cls = type(sampler)
    shown = [name for name in inspect.signature(cls.__init__).parameters if name not in _NOT_SHOWN]
    if getattr(cls, "__iter__", None) is DefaultBatchSampler.__iter__ and not of_many:
        shown = [name for name in shown if name != "batch_size"]
    kept = vars(sampler) if hasattr(sampler, "__dict__") else {}
    arguments = [f"{name}={kept[name]!r}" for name in shown if name in kept and _is_plain(kept[name])]
    children = kept.get("batch_samplers")
    children = children if isinstance(children, (list, tuple)) else ()
    beneath = dict.fromkeys(described(child, of_many=True) for child in children)
    return f"{cls.__qualname__}({', '.join([*beneath, *arguments])})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) < 100 and all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)
