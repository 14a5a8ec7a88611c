"""Repeated values on disk: built by one process, mapped by the others.

Guarantee: what is read is what was written for this dataset, these columns and this format, or it is built anew. The
file states its magic, format version, fingerprint, columns, rows and sizes, and a checksum of its arrays; all are
compared. It appears under its name complete (an atomic rename), and one process at a time builds it (a file lock).
Where the folder cannot be written, the values are built in memory and this is logged once.

Cost: reading checks every byte once; the arrays are then mapped, and shared by the processes of a node.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from sentence_transformers.base.repeats import RepeatedValues

logger = logging.get_logger(__name__)

_MAGIC = b"planned-batches\n"
_VERSION = 1
_HEADER = 4096
_BLOCK = 1 << 24


def cached(
    folder: str, fingerprint: str, view: list[str], rows: int, build: Callable[[], RepeatedValues]
) -> RepeatedValues:
    """Map the values from ``folder``, building and writing them first if need be.

    Args:
        folder: the dataset's cache folder.
        fingerprint: the dataset's fingerprint.
        view: format and columns that count.
        rows: rows of the dataset.
        build: computes the values.
    """
    from filelock import FileLock

    claim = {"version": _VERSION, "fingerprint": fingerprint, "view": view, "rows": rows}
    path = Path(folder) / f"planned-batches-{_digest(json.dumps(claim).encode())}.keys"
    values = _read(path, claim)
    if values is not None:
        return values
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire()
    except OSError as error:
        return _without_cache(folder, error, build())
    try:
        return _read(path, claim) or _built(path, claim, build())
    finally:
        lock.release()


def _built(path: Path, claim: dict[str, Any], values: RepeatedValues) -> RepeatedValues:
    try:
        _write(path, claim, values)
    except OSError as error:
        return _without_cache(str(path.parent), error, values)
    return _read(path, claim) or values


def _without_cache(folder: str, error: OSError, values: RepeatedValues) -> RepeatedValues:
    logger.warning_once(
        f"The repeated values of the dataset are not kept on disk: {folder} cannot be written: {error}"
    )
    return values


def _digest(data: bytes) -> str:
    from xxhash import xxh3_128_hexdigest

    return str(xxh3_128_hexdigest(data))


def _layout(values: RepeatedValues) -> dict[str, Any]:
    arrays = (values.row_values, values.members, values.starts)
    return {
        "shapes": [list(array.shape) for array in arrays],
        "types": [array.dtype.newbyteorder("<").str for array in arrays],
    }


def _write(path: Path, claim: dict[str, Any], values: RepeatedValues) -> None:
    from xxhash import xxh3_128

    checksum = xxh3_128()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(bytes(_HEADER))
            for array in (values.row_values, values.members, values.starts):
                flat = array.reshape(-1)
                for low in range(0, len(flat), _BLOCK):
                    block = flat[low : low + _BLOCK].astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
                    checksum.update(block)
                    file.write(block)
            header = json.dumps({**claim, **_layout(values), "checksum": checksum.hexdigest()}).encode()
            if len(_MAGIC) + len(header) > _HEADER:
                raise OSError("the names of the columns do not fit the header")
            file.seek(0)
            file.write(_MAGIC + header)
        Path(temporary).chmod(0o666 & ~_umask())  # others may share the folder; mkstemp thinks of its owner alone
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _read(path: Path, claim: dict[str, Any]) -> RepeatedValues | None:
    """The values, or None where the file is missing, damaged or of other data."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER)
            if not start.startswith(_MAGIC):
                return None
            header = json.loads(start[len(_MAGIC) :].rstrip(b"\0"))
            if not isinstance(header, dict) or any(header.get(name) != value for name, value in claim.items()):
                return None
            if header["checksum"] != _checksum(file):
                return None
        return _mapped(path, header)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checksum(file: Any) -> str:
    from xxhash import xxh3_128

    checksum = xxh3_128()
    while block := file.read(_BLOCK):
        checksum.update(block)
    return str(checksum.hexdigest())


def _mapped(path: Path, header: dict[str, Any]) -> RepeatedValues | None:
    arrays, offset = [], _HEADER
    for shape, kind in zip(header["shapes"], header["types"]):
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        if size == 0:
            arrays.append(np.empty(shape, dtype=kind))
            continue
        mapped = np.memmap(path, dtype=kind, mode="r", offset=offset, shape=tuple(shape))
        arrays.append(np.asarray(mapped))
        offset += size
    if offset != path.stat().st_size or len(arrays) != 3:
        return None
    return RepeatedValues(*arrays)
