"""Let a stateful loader begin its first epoch when that begins, not when it is built.

accelerate asks a torchdata ``StatefulDataLoader`` for its state as soon as it wraps it. With workers, the loader then
starts them and draws the first batches, before anyone has set an epoch, and keeps them for the first iteration. After
a start in a later epoch, as after a resume, these are epoch 0's batches.

Guarantee: after :func:`begin_anew` the next iteration draws its batches, and starts its workers, when it begins. A
state that was loaded, but not yet begun with, is kept.

Cost: workers that were started too early are ended, once.
"""

from __future__ import annotations

from typing import Any

from accelerate.data_loader import DataLoaderAdapter


def begin_anew(dataloader: Any) -> bool:
    """
    Make a prepared dataloader forget an iteration that began too early. The trainers do this themselves.

    Args:
        dataloader: A dataloader, prepared by accelerate or not. Only a stateful one is changed.

    Returns:
        bool: Whether the dataloader is a stateful one that accelerate prepared.
    """
    if not isinstance(dataloader, DataLoaderAdapter) or not dataloader.use_stateful_dataloader:
        return False
    dataloader.load_state_dict({})  # torchdata's way to drop the iterator and load nothing in its place
    return True
