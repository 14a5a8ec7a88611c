"""Random numbers that stay the same on every platform and NumPy version.

Guarantee: only streams that NumPy promises to keep are used: ``SeedSequence`` and ``PCG64.random_raw``, and the
shuffle of the frozen ``RandomState`` (NEP 19). The methods of ``Generator`` carry no such promise. Seed and epoch
enter separately: epoch 1 of seed 42 has nothing to do with epoch 0 of seed 43.

Cost: ``permutation`` is linear and takes 8 bytes a row, 4 of them its result. Rows are dealt to 256 heaps at random,
and each heap, small enough for the processor's cache, is shuffled (Rao 1961, Sandelius 1962): exactly uniform, and
unlike one big shuffle it does not slow down once the rows outgrow the cache.

Known bias: ``below`` takes a remainder; a value's probability is off by less than ``bound / 2**64`` of itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_HEAPS = 256
_CHUNK = 1 << 18
_IN_CACHE = 1 << 18


class Rng:
    """Random numbers of one use, such as an epoch.

    Args:
        seed: non-negative integer.
        path: non-negative integers that name the use; those on any two paths are independent.
    """

    def __init__(self, seed: int, *path: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path))
        self._legacy = np.random.RandomState(self._bits)

    def below(self, bound: int, size: int) -> npt.NDArray[np.int64]:
        """``size`` integers of [0, bound), int64."""
        remainder: npt.NDArray[np.int64] = (self._raw(size) % np.uint64(bound)).astype(np.int64)
        return remainder

    def shuffle(self, items: npt.NDArray[Any]) -> None:
        """Shuffle a contiguous vector in place."""
        self._legacy.shuffle(items)

    def permutation(self, size: int) -> npt.NDArray[np.int32]:
        """``arange(size)`` in uniformly random order, int32."""
        if size <= _IN_CACHE:
            result = np.arange(size, dtype=np.int32)
            self.shuffle(result)
            return result
        chunks, bounds = [], []
        for low in range(0, size, _CHUNK):
            heap_of = self._bytes(min(_CHUNK, size - low))
            chunks.append((np.argsort(heap_of, kind="stable") + low).astype(np.int32))
            bounds.append(np.concatenate([[0], np.cumsum(np.bincount(heap_of, minlength=_HEAPS))]).tolist())
        result = np.empty(size, dtype=np.int32)
        high = 0
        for heap in range(_HEAPS):
            low = high
            for chunk, bound in zip(chunks, bounds):
                part = chunk[bound[heap] : bound[heap + 1]]
                high += len(part)
                result[high - len(part) : high] = part
            self.shuffle(result[low:high])
        return result

    def _raw(self, size: int) -> npt.NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(size), dtype=np.uint64)

    def _bytes(self, size: int) -> npt.NDArray[np.uint8]:
        return self._raw(-(-size // 8)).astype("<u8", copy=False).view(np.uint8)[:size]
