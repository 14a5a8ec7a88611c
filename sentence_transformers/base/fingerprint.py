"""A short fingerprint of an epoch's order: a digest of the rows, in the order in which they are planned.

Guarantee: two orders have the same digest exactly when they are the same rows in the same order (but for a chance of
1 in 2¹²⁸ for the digest, 1 in 2⁴⁸ for its short form). How an order is cut into batches does not count, so that
1 process × 16 rows and 2 × 8 of one plan have one fingerprint. Neither does the type that holds the rows: lists,
ranges, NumPy arrays and tensors of the same rows give the same digest, on every platform.

What is digested: each row's index as 8 bytes, little-endian, by XXH3 with 128 bits.

Cost: streamed, no copy of the plan. Arrays take well under a nanosecond a row, lists of Python integers about eight:
see ``benchmarks/results/fingerprint.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

SHORT = 12  # hexadecimal digits that are shown and logged
FEW_ROWS = 12  # 12! orders are so few that one may come twice by chance
_PIECE = 1 << 16  # rows of an array that are widened at a time

Rows = Sequence[int] | npt.NDArray[np.integer[Any]] | torch.Tensor


class OrderDigest:
    """
    A digest of rows, fed batch by batch.

    Raises:
        ValueError: If what is fed are not integers, in one dimension.
    """

    def __init__(self) -> None:
        from xxhash import xxh3_128

        self._hash = xxh3_128()
        self.rows = 0
        """The number of rows fed so far."""

    def update(self, rows: Rows) -> None:
        """
        Go on with further rows.

        Args:
            rows: Indices of rows, of any length: a list or other sequence of integers, or a NumPy array or tensor of
                integers in one dimension.
        """
        if isinstance(rows, torch.Tensor):
            rows = rows.numpy(force=True)
        if not isinstance(rows, np.ndarray):
            self.update_packed(pack_rows(rows))
            return
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise _not_rows(rows)
        for low in range(0, len(rows), _PIECE):
            self._hash.update(np.ascontiguousarray(rows[low : low + _PIECE], dtype="<i8").data)
        self.rows += len(rows)

    def update_packed(self, rows: bytes) -> None:
        """Go on with further rows, of which :func:`pack_rows` has made bytes."""
        self._hash.update(rows)
        self.rows += len(rows) // 8

    def copy(self) -> OrderDigest:
        """A digest that goes on from here by itself."""
        other = OrderDigest()
        other._hash, other.rows = self._hash.copy(), self.rows
        return other

    def hexdigest(self) -> str:
        """All of the digest: 32 hexadecimal digits. What is compared."""
        return str(self._hash.hexdigest())

    def short(self) -> str:
        """The digest's first ``SHORT`` hexadecimal digits. What is shown."""
        return self.hexdigest()[:SHORT]


def order_fingerprint(batches: Iterable[Rows]) -> str:
    """
    The fingerprint of an order, as the trainers log it: 12 hexadecimal digits.

    Args:
        batches: The rows of each batch, in the order planned; of a batch sampler, itself.

    Returns:
        str: The short digest of all rows. However they are cut into batches, it is the same.

    Raises:
        ValueError: If a batch is not of integers.
    """
    digest = OrderDigest()
    for rows in batches:
        digest.update(rows)
    return digest.short()


def pack_rows(rows: Sequence[int]) -> bytes:
    """
    Rows as they are digested, 8 bytes each, little-endian.

    Raises:
        ValueError: If they are not integers.
    """
    try:
        return _packer(len(rows))(*rows)
    except (struct.error, TypeError) as cause:
        raise _not_rows(rows) from cause


@lru_cache(maxsize=64)
def _packer(length: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{length}q").pack


def _not_rows(rows: Any) -> ValueError:
    return ValueError(
        f"An order is made of batches of row numbers, but got {str(rows)[:60]!r} ({type(rows).__name__}). Pass lists "
        "of integers below 2**63, or arrays or tensors of integers in one dimension."
    )
