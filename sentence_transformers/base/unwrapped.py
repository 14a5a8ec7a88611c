"""Average the gradients that DistributedDataParallel (DDP) does not: those of what a loss trains besides the model.

DDP wraps the model. Parameters of the loss, e.g. the classifier of ``SoftmaxLoss``, are in the optimizer but in no
wrapper. A loss that does not hold the model as ``model``, as ``DenoisingAutoEncoderLoss``, is never given the wrapped
one; then this holds for the model's parameters, too.

Cost: none in one process, or without such parameters. Otherwise, in each optimizer step, one all-reduce of as many
integers, and one of each gradient, in place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from transformers import Trainer
from transformers.utils import logging

from sentence_transformers.base.model import BaseModel

logger = logging.get_logger(__name__)


def unwrapped_parameters(trainer: Trainer) -> list[nn.Parameter]:
    """The trained parameters of the losses that are in no wrapper, set to rank 0's. None under FSDP and DeepSpeed."""
    ddp = trainer.accelerator.use_distributed and dist.is_available() and dist.is_initialized()
    if not ddp or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return []
    losses = trainer.loss.values() if isinstance(trainer.loss, dict) else [trainer.loss]
    parameters = list({id(p): p for loss in losses if isinstance(loss, nn.Module) for p in _unwrapped(loss)}.values())
    if not parameters:
        return []
    shapes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shapes, [tuple(parameter.shape) for parameter in parameters])
    if any(others != shapes[0] for others in shapes):
        logger.warning(f"The loss has other parameters on other processes; each trains its own. Shapes: {shapes}")
        return []
    for parameter in parameters:
        value = parameter.detach().contiguous()
        dist.broadcast(value, src=0)
        parameter.detach().copy_(value)
    return parameters


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """A process without a gradient counts as zero, as in DDP; where no process has one, none gets one."""
    counts = torch.tensor([int(parameter.grad is not None) for parameter in parameters], device=parameters[0].device)
    dist.all_reduce(counts)
    used = [parameter for parameter, count in zip(parameters, counts.tolist()) if count]
    for parameter in used:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
        parameter.grad = gradient.contiguous().div_(dist.get_world_size())
    for work in [dist.all_reduce(parameter.grad, async_op=True) for parameter in used]:
        work.wait()


def _unwrapped(loss: nn.Module) -> list[nn.Parameter]:
    """A loss with a ``model`` is given the wrapped one, and further models in it are guides or teachers."""
    wrappers = (DistributedDataParallel, BaseModel) if hasattr(loss, "model") else DistributedDataParallel
    wrapped = {id(p) for module in loss.modules() if isinstance(module, wrappers) for p in module.parameters()}
    return [p for p in loss.parameters() if p.requires_grad and id(p) not in wrapped and not is_lazy(p)]
