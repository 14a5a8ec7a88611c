"""What an order of batches is made from, kept in a checkpoint, and what has changed when a run goes on from there.

Guarantee: :func:`read_identity` returns what :func:`write_identity` wrote, or says what is wrong with the file; the
file appears under its name complete. :func:`changes` names everything that differs and decides the order. The number
of processes and of accumulated batches do not, as long as the same rows are in each optimizer step.

Known bias: of a sampler's arguments, those that decide nothing are told from the others by the rows taken. Between
epochs there are none, and each argument counts. Where processes or batches are others now, an epoch may have a step
more or less: its last, which not every number of processes can share.

Cost: one small file a checkpoint.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, fields
from math import ceil
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
# How `no_duplicates` computes what it draws by
_OF_NO_ACCOUNT = re.compile(r", precompute_\w+=[^,()]+")


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
    if before.seed != now.seed:
        found.append(f"seed: {before.seed}, now {now.seed}")
    found += _changes_of_batches(before, now)
    if _deciding(before.sampler, before, now) != _deciding(now.sampler, before, now):
        found.append(f"sampler: {before.sampler}, now {now.sampler}")
    found += _changes_of_steps(before, now)
    if _is_moved(before, now):
        epoch = "" if before.epoch == now.epoch else f" of epoch {now.epoch}"
        old, new = _rows_taken(before, now)
        found.append(f"place: after {old} rows of epoch {before.epoch}, now after {new}{epoch}")
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
            found.append(
                f"data of {old.name}: other values, or the same rows in another order, or stored in another way"
            )
    return found


def _accumulations(before: OrderIdentity, now: OrderIdentity) -> tuple[int, int]:
    """The batches in an optimizer step; of a checkpoint that does not say, as many as now."""
    new = now.accumulation or 1
    return before.accumulation or new, new


def _changes_of_batches(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    """Rows are taken alike if as many are in each optimizer step, in however many batches."""
    old, new = _accumulations(before, now)
    if before.batch_size * old == now.batch_size * new:
        return []
    if old == new:
        return [f"batch size over all processes: {before.batch_size}, now {now.batch_size}"]
    return [
        f"rows in an optimizer step: {before.batch_size * old} (batches of {before.batch_size}, {old} accumulated), "
        f"now {now.batch_size * new} (batches of {now.batch_size}, {new} accumulated)"
    ]


def _is_laid_out_anew(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the rows of an optimizer step come to other processes, or in other batches, than they did."""
    old, new = _accumulations(before, now)
    return (before.processes, before.batch_size, old) != (now.processes, now.batch_size, new)


def _changes_of_steps(before: OrderIdentity, now: OrderIdentity) -> list[str]:
    """The steps of an epoch; but for its last one, which some layouts take and others cannot share out."""
    if not _is_laid_out_anew(before, now):
        same = before.steps == now.steps
        return [] if same else [f"steps in an epoch: {before.steps}, now {now.steps}"]
    old, new = (ceil(one.steps / size) for one, size in zip((before, now), _accumulations(before, now)))
    return [] if abs(old - new) <= 1 else [f"optimizer steps in an epoch: {old}, now {new}"]


def _deciding(sampler: str, before: OrderIdentity, now: OrderIdentity) -> Any:
    """
    Of a sampler's description, what is taken to decide the order.

    Where the rows taken are the same, its arguments have made no difference (a path, a progress bar); but the batch
    size may make one later. Those named in ``_OF_NO_ACCOUNT`` never do.
    """
    if not _begins_alike(before, now):
        return _OF_NO_ACCOUNT.sub("", sampler)
    without_texts = re.sub(r"'[^']*'|\"[^\"]*\"", "", sampler)
    return re.findall(r"[\w.<>]+\(|\bbatch_size=\d+", without_texts)


def _are_seen(before: OrderIdentity, now: OrderIdentity) -> bool:
    return before.taken is not None and now.taken is not None


def _rows_taken(before: OrderIdentity, now: OrderIdentity) -> tuple[int, int]:
    """Of the epoch under way, then and now: those seen, or as many as the steps should have taken."""
    seen = _are_seen(before, now)
    old, new = (one.rows if seen else one.step * one.batch_size for one in (before, now))
    return old, new


def _is_moved(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the run goes on elsewhere. Of a stream, whose passes have no known end, that cannot be told."""
    if not before.datasets:
        return False
    old, new = _rows_taken(before, now)
    # A last step that this layout cannot share out is not taken: the epoch is over before it
    is_over = not _changes_of_batches(before, now) and 0 < now.steps * now.batch_size <= old
    place = (before.epoch + 1, 0) if is_over else (before.epoch, old)
    return place != (now.epoch, new)


def _is_comparable(before: OrderIdentity, now: OrderIdentity) -> bool:
    return _are_seen(before, now) and (before.epoch, before.rows) == (now.epoch, now.rows)


def _is_other_order(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the rows taken before are known not to be those that the order now begins with."""
    return _is_comparable(before, now) and before.taken != now.taken


def _begins_alike(before: OrderIdentity, now: OrderIdentity) -> bool:
    """Whether the rows taken before are known to be those that the order now begins with, by their numbers."""
    return _is_comparable(before, now) and before.rows > 0 and before.taken == now.taken


def meaning(before: OrderIdentity, now: OrderIdentity) -> str:
    """What the changes mean for the epoch under way; no more is said than is known."""
    old, new = _rows_taken(before, now)
    under_way = f"Epoch {before.epoch} was stopped after {old} rows. " if before.step else "No epoch was under way. "
    if _is_other_order(before, now):
        return under_way + (
            "The rest of it is drawn from another order or other data, so that some of its rows are seen twice, and "
            "others not at all."
        )
    if _is_moved(before, now):
        is_as_planned = not _changes_of_data(before, now) and (before.seed, before.sampler) == (now.seed, now.sampler)
        skipped = "left out" if (now.epoch, new) > (before.epoch, old) else "seen twice"
        between = f"so that the rows between are {skipped}" if is_as_planned else "in what may be another order"
        return under_way + f"The run goes on at row {new} of epoch {now.epoch}, {between}."
    if _begins_alike(before, now):
        rows = "The order begins with the same rows now as then, but "
        if _changes_of_data(before, now):
            rows = "The order begins with the same row numbers now as then, but these rows may hold other values, and "
        return under_way + rows + "the rest of it may be another."
    if not before.step:
        return under_way + "Those to come may not be the ones that the run before would have had."
    return under_way + (
        "The rest of it may be drawn from another order or other data, so that some of its rows may be seen twice, "
        "and others not at all."
    )
