"""Write the parameters that a loss trains besides the model into checkpoints, and restore them.

A checkpoint holds the optimizer's state for them, but not the parameters themselves, e.g. the classifier of
``SoftmaxLoss``. One more file, ``loss.safetensors``, is written if a loss has any. In a loss with a ``model``, further
models are guides or teachers and not written. Buffers are not written.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer
from transformers.utils import logging

from sentence_transformers.base.model import BaseModel

logger = logging.get_logger(__name__)

LOSS_NAME = "loss.safetensors"
_ANEW = "Without this file, the parameters of the loss start anew."


def save_loss(trainer: Trainer, checkpoint: str) -> None:
    """Write the trained parameters of the loss, if there are any."""
    trained = {name: parameter for name, parameter in _own(trainer).items() if parameter.requires_grad}
    if trained:
        tensors = {
            name: parameter.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, parameter in trained.items()
        }
        save_file(tensors, Path(checkpoint, LOSS_NAME), metadata={"format": "pt"})


def load_loss(trainer: Trainer, checkpoint: str) -> None:
    """
    Restore the parameters of the loss. One warning if the checkpoint has none.

    Raises:
        ValueError: If the file is damaged, or has other names or shapes than the loss.
    """
    own, path = _own(trainer), Path(checkpoint, LOSS_NAME)
    trained = [name for name, parameter in own.items() if parameter.requires_grad]
    if not path.is_file():
        if trained and trainer.is_world_process_zero():
            logger.warning(f"{checkpoint} has no {LOSS_NAME}; these parameters start anew: {_some(trained)}.")
        return
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Resume from another checkpoint. {_ANEW}") from error
    differ = {
        "not in the file": [name for name in trained if name not in saved],
        "not in the loss": [name for name in saved if name not in own],
        "of another shape": [name for name in saved if name in own and saved[name].shape != own[name].shape],
    }
    if any(differ.values()):
        wrong = "; ".join(f"{_some(names)} {where}" for where, names in differ.items() if names)
        raise ValueError(f"{path} was written with another loss: {wrong}. Resume with that loss. {_ANEW}")
    for name, tensor in saved.items():
        own[name].detach().copy_(tensor)


def _own(trainer: Trainer) -> dict[str, nn.Parameter]:
    """By name, after that of the dataset if there are several losses; a loss of several datasets has the first's."""
    own, taken = {}, {id(parameter) for parameter in trainer.model.parameters()}
    losses = trainer.loss if isinstance(trainer.loss, dict) else {"": trainer.loss}
    for dataset, loss in sorted(losses.items()):
        if isinstance(loss, nn.Module):
            loss = trainer.accelerator.unwrap_model(loss, keep_torch_compile=False)
            if hasattr(loss, "model"):
                models = [module for module in loss.modules() if isinstance(module, BaseModel)]
                taken |= {id(parameter) for model in models for parameter in model.parameters()}
            named = [(name, p) for name, p in loss.named_parameters(prefix=dataset) if id(p) not in taken]
            own.update(named)
            taken |= {id(parameter) for _, parameter in named}
    return own


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
