"""A random stream of its own for each dataset of a run.

Guarantee: the stream of a dataset depends on the run's seed and the dataset's position alone, so it is the same on
every process and platform, and stays the same when another dataset is added after it. The first dataset, like a single
one, keeps the run's seed itself.

Bias: a seed of a later dataset is 31 random bits, so that two of n datasets share a stream with probability n² / 2³².

Method: NumPy's ``SeedSequence``, whose output NumPy keeps stable across versions and platforms
(https://numpy.org/doc/stable/reference/random/bit_generators/generated/numpy.random.SeedSequence.html).
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch


class Stream(TypedDict):
    """The arguments by which a batch sampler is given its randomness."""

    generator: torch.Generator
    seed: int


def dataset_stream(seed: int, index: int = 0) -> Stream:
    """
    The generator and the seed for the batch sampler of one dataset of a run.

    Args:
        seed (int): The seed of the run.
        index (int): The position of the dataset in the run, counted from 0.

    Returns:
        Stream: ``generator``, shared with no other dataset, and ``seed``, which is ``seed`` itself at index 0 and in
        [0, 2³¹) at others. Samplers seed the generator with ``seed + epoch`` when an epoch starts.
    """
    if index:
        seed = int(np.random.SeedSequence([seed % 2**64, index]).generate_state(1)[0] >> 1)
    return Stream(generator=torch.Generator().manual_seed(seed), seed=seed)
