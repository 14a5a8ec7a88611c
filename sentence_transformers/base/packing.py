"""The batches of a step as one tensor of bytes, of which accelerate's slice for a process is that process's batch.

accelerate's dispatching loader knows dicts of tensors: it describes them to the other processes, allocates them there,
broadcasts and slices. So a step is a dict of one tensor, with all that is not a tensor in its key, which accelerate
sends along as it is. A subclass of the loader could do without that turn; but ``skip_first_batches`` makes a new
loader of accelerate's own class, and keeps no more of ours than the collator and what it returns.

Guarantee: whatever can be pickled arrives as it was, but for tensors that a batch holds twice, which arrive twice. An
error that is packed as a :class:`Failure` is raised on the process that it arrives on.

Cost: two copies of a batch's tensors, one when it is packed and one on the device that it arrives on; up to 15 bytes
beside each tensor; and all parts are as long as the longest.
"""

from __future__ import annotations

import io
import pickle
import traceback
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import torch
from accelerate.state import PartialState

_ALIGNED = 16  # bytes; no element of a tensor is larger


class Step(dict[Any, Any]):
    """
    The batches of a step, packed: ``{layout: bytes}``, of which accelerate sees a tensor in a dict.

    accelerate makes dicts of the same type from it: with information about the tensor, to be sent ahead; with the
    tensor on the device; broadcast; and with a slice for each process. The slice, known by being shorter than the
    layout says, is a process's batch, and what is made of it is the batch itself, of whatever type that is.
    """

    def __new__(cls, packed: Any = ()) -> Any:
        """A step; or, if ``packed`` is a slice of one, the batch of this process."""
        for layout, rows in dict(packed).items():
            if isinstance(rows, torch.Tensor) and len(rows) < layout.rows:
                return layout.unpack(rows, PartialState().process_index)
        return super().__new__(cls)


class _Place(NamedTuple):
    """Where a tensor is among the bytes of its batch."""

    start: int
    stop: int
    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class _Layout:
    """What is in the bytes of a step."""

    rows: int  # of the tensor of bytes: as many as the step has, for accelerate to count
    batches: tuple[bytes, ...]  # pickled, tensors replaced by their number
    places: tuple[tuple[_Place, ...], ...]  # of each batch's tensors

    def unpack(self, rows: torch.Tensor, process_index: int) -> Any:
        """The batch of a process, on the device that its bytes are on."""
        flat = rows.reshape(-1)
        tensors = [flat[at.start : at.stop].view(at.dtype).view(at.shape).clone() for at in self.places[process_index]]
        batch = _Unpickler(self.batches[process_index], tensors).load()
        if isinstance(batch, Failure):
            raise batch.error from RuntimeError(f"raised on the main process, which dispatches:\n{batch.traceback}")
        return batch


class Failure:
    """
    What a process gets in place of a batch that could not be made.

    Args:
        error (Exception): The reason, while it is handled. One that cannot be pickled is sent as a RuntimeError.
    """

    def __init__(self, error: Exception) -> None:
        self.traceback = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
            self.error = error
        except Exception:  # whatever a class of errors does when it is copied
            self.error = RuntimeError(f"{type(error).__name__}: {error}")


def pack(batches: list[Any], rows: int) -> Step:
    """
    Pack the batches of a step, so that accelerate's slice for a process holds that process's batch.

    Args:
        batches (list): The batch of each process, of anything that can be pickled.
        rows (int): The number of rows in all of them.

    Returns:
        Step: Its tensor of bytes is of shape (``max(rows, processes)``, any), of which ``rows // processes`` rows are
        sliced for each process.
    """
    picklers = [_Pickler(batch) for batch in batches]
    rows = max(rows, len(batches))
    per_process = rows // len(batches)
    longest = max(pickler.size for pickler in picklers)
    width = max(_aligned(ceil(longest / per_process)), _ALIGNED)
    packed = torch.zeros(rows, width, dtype=torch.uint8)
    for index, pickler in enumerate(picklers):
        flat = packed[index * per_process : (index + 1) * per_process].view(-1)
        for at, tensor in zip(pickler.places, pickler.tensors):
            flat[at.start : at.stop] = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    layout = _Layout(rows, tuple(each.pickled for each in picklers), tuple(tuple(each.places) for each in picklers))
    step: Step = Step({layout: packed})
    return step


def _aligned(size: int) -> int:
    return ceil(size / _ALIGNED) * _ALIGNED


class _Pickler(pickle.Pickler):
    """Pickles a batch but for its tensors, which it collects; unusual tensors are pickled."""

    def __init__(self, batch: Any) -> None:
        file = io.BytesIO()
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[torch.Tensor] = []
        self.places: list[_Place] = []
        self.size = 0  # bytes of the tensors
        self.dump(batch)
        self.pickled = file.getvalue()

    def persistent_id(self, obj: Any) -> int | None:
        """A number that stands for the tensor."""
        if type(obj) is not torch.Tensor or obj.layout is not torch.strided or obj.requires_grad:
            return None
        if obj.is_quantized or obj.is_complex():
            return None
        stop = self.size + obj.numel() * obj.element_size()
        self.places.append(_Place(self.size, stop, obj.shape, obj.dtype))
        self.tensors.append(obj)
        self.size = _aligned(stop)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, pickled: bytes, tensors: list[torch.Tensor]) -> None:
        super().__init__(io.BytesIO(pickled))
        self.tensors = tensors

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """The tensor of this number."""
        number: int = pid
        return self.tensors[number]
