"""The fingerprint of an epoch's order: a digest of the rows, in the order in which they are planned.

Guarantee: two orders have the same digest exactly when they are the same rows in the same order, but for a chance of
1 in 2¹²⁸; the fingerprint is its first 24 bits, so that two different orders show the same one once in 16 million. How
an order is cut into batches does not count: 1 process × 16 rows and 2 × 8 of one plan have one fingerprint. Neither
does the type that holds the rows.

Why 24 bits: trackers take numbers alone, and TensorBoard keeps them as float32, which is exact up to 2²⁴.

Cost: each row is packed as 8 bytes and digested by XXH3: about 1 ns a row of an array, 10 ns a row of a list.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

DIGITS = 6  # hexadecimal digits of a fingerprint
FEW_ROWS = 12  # 12! orders are so few that one may come twice by chance

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
        """Go on with further rows: a sequence of integers, or an array or a tensor of them in one dimension."""
        self.update_packed(pack_rows(rows))

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
        """The whole digest, 32 hexadecimal digits: what is compared."""
        return str(self._hash.hexdigest())


def order_digest(batches: Iterable[Rows]) -> str:
    """The whole digest of the rows of some batches, in their order."""
    digest = OrderDigest()
    for rows in batches:
        digest.update(rows)
    return digest.hexdigest()


def order_fingerprint(batches: Iterable[Rows]) -> str:
    """
    The fingerprint of an order, as :class:`~sentence_transformers.order.OrderCallback` shows it.

    Args:
        batches: The rows of each batch, in the order planned; of a batch sampler, itself.

    Returns:
        str: 6 hexadecimal digits. However the rows are cut into batches, they are the same.

    Raises:
        ValueError: If a batch is not of integers.
    """
    return order_digest(batches)[:DIGITS]


def pack_rows(rows: Rows) -> bytes:
    """
    Rows as they are digested, 8 bytes each, little-endian.

    Raises:
        ValueError: If they are not integers in one dimension.
    """
    if isinstance(rows, torch.Tensor):
        rows = rows.numpy(force=True)
    if isinstance(rows, np.ndarray):
        if rows.ndim == 1 and rows.dtype.kind in "iu":
            return rows.astype("<i8").tobytes()
        raise _not_rows(rows)
    try:
        return struct.pack(f"<{len(rows)}q", *rows)
    except (struct.error, TypeError) as cause:
        raise _not_rows(rows) from cause


def _not_rows(rows: Any) -> ValueError:
    return ValueError(
        f"An order is made of batches of row numbers, but got {str(rows)[:60]!r} ({type(rows).__name__}). Pass lists "
        "of integers below 2**63, or arrays or tensors of integers in one dimension."
    )
