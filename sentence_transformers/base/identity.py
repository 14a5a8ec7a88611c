"""What an order of batches is made from, kept in a checkpoint, and what has changed when a run goes on from there.

Guarantee: :func:`read_identity` returns what :func:`write_identity` wrote, or says what is wrong with the file; the
file appears under its name complete. :func:`changes` names everything that differs and decides the order. The number
of processes does not, as long as they take the same rows in each step.

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
    except (OSError, ValueError) as cause:
        raise DamagedIdentity(f"{path} cannot be read: {cause}") from cause
    version = said.pop("version", None) if isinstance(said, dict) else None
    if version != _VERSION:
        raise DamagedIdentity(f"{path} is of format {version!r}, and this package reads format {_VERSION}")
    try:
        return _identity(said)
    except (TypeError, KeyError) as cause:
        raise DamagedIdentity(f"{path} does not hold what it should: {cause}") from cause


def _identity(said: dict[str, Any]) -> OrderIdentity:
    for field in fields(OrderIdentity):
        kind = {"int": int, "str": str}.get(str(field.type), list)
        value = said[field.name]
        if not (isinstance(value, kind) or (field.name == "taken" and isinstance(value, (str, type(None))))):
            raise TypeError(f"{field.name} is {value!r}")
    datasets = tuple(DataIdentity(**_checked(data)) for data in said["datasets"])
    return OrderIdentity(**{**said, "datasets": datasets, "orders": tuple(map(str, said["orders"]))})


def _checked(data: Any) -> dict[str, Any]:
    if not (isinstance(data, dict) and isinstance(data.get("name"), str) and isinstance(data.get("rows"), int)):
        raise TypeError(f"a dataset is {data!r}")
    return data


def described(sampler: Any) -> str:
    """
    A sampler with the arguments that decide its order, for messages and to compare.

    Of what its ``__init__`` takes, those are shown that it keeps under the same name, and that are plain values.
    The default sampler's batch size does not decide its order.
    """
    if sampler is None:
        return "none"
    cls = type(sampler)
    shown = [name for name in inspect.signature(cls.__init__).parameters if name not in _NOT_SHOWN]
    if getattr(cls, "__iter__", None) is DefaultBatchSampler.__iter__:
        shown = [name for name in shown if name != "batch_size"]
    kept = vars(sampler) if hasattr(sampler, "__dict__") else {}
    arguments = [f"{name}={kept[name]!r}" for name in shown if name in kept and _is_plain(kept[name])]
    children = kept.get("batch_samplers")
    beneath = dict.fromkeys(map(described, children if isinstance(children, (list, tuple)) else ()))
    return f"{cls.__qualname__}({', '.join([*beneath, *arguments])})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) < 100 and all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)


def changes(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    """
    What has changed, one line each; empty if the run goes on as it would have.

    Args:
        before (OrderIdentity): Of the checkpoint.
        now (OrderIdentity): Of the run that goes on from it, at the place where it goes on.
    """
    found = [*_changes_of_data(before, now)]
    for name, old, new in (
        ("seed", before.seed, now.seed),
        ("batch size over all processes", before.batch_size, now.batch_size),
        ("sampler", before.sampler, now.sampler),
        ("steps in an epoch", before.steps, now.steps),
    ):
        if old != new:
            found.append(f"{name}: {old}, now {new}")
    # A stream's passes have no known end; a run that was stopped at one goes on at the next one's beginning
    if before.datasets and (before.epoch, before.step) != (now.epoch, now.step):
        found.append(
            f"place: after {before.step} steps of epoch {before.epoch}, now after {now.step} of epoch {now.epoch}"
        )
    if not found and _are_seen(before, now) and before.rows != now.rows:
        found.append(f"place: after {before.rows} rows of epoch {before.epoch}, now after {now.rows}")
    if not found and _is_other_order(before, now):
        found.append(
            f"order: the first {before.rows} rows of epoch {before.epoch} are other ones now, though data, seed and "
            "sampler are the same; the sampler draws by something else, or was changed"
        )
    return found


def _changes_of_data(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    names, names_now = ([data.name for data in one.datasets] for one in (before, now))
    if names != names_now:
        return [f"datasets: {', '.join(names) or 'a stream'}, now {', '.join(names_now) or 'a stream'}"]
    found = []
    for old, new in zip(before.datasets, now.datasets):
        if old.rows != new.rows:
            found.append(f"data of {old.name}: {old.rows} rows, now {new.rows}")
        elif old.digest != new.digest and old.digest and new.digest:
            found.append(f"data of {old.name}: other values, or the same rows in another order")
    return found


def _are_seen(before: OrderIdentity, now: OrderIdentity) -> bool:
    return before.taken is not None and now.taken is not None


def _is_other_order(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the rows taken before are known not to be those that the order now begins with."""
    return _are_seen(before, now) and before.rows == now.rows and before.taken != now.taken


def meaning(before: OrderIdentity, now: OrderIdentity) -> str:
    """What the changes mean for the epoch under way."""
    if not before.step:
        return "No epoch was under way. Those to come are not the ones that the run before would have had."
    seen = _are_seen(before, now)
    old, new = (one.rows if seen else one.step * one.batch_size for one in (before, now))
    under_way = f"Epoch {before.epoch} was stopped after {old} rows. "
    begins_alike = seen and before.rows == now.rows and before.taken == now.taken
    if _is_other_order(before, now) or _changes_of_data(before, now) or (before.seed != now.seed and not begins_alike):
        return under_way + (
            "The rest of it is drawn from another order or other data, so that some of its rows are seen twice, and "
            "others not at all."
        )
    if (before.epoch, old) != (now.epoch, new):
        return under_way + (
            f"The run goes on at row {new} of epoch {now.epoch}, so that the rows between are "
            f"{'left out' if (now.epoch, new) > (before.epoch, old) else 'seen twice'}."
        )
    return under_way + "The order begins with the same rows now as then, but the rest of it may be another."
