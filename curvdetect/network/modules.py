"""Torch modules: what one computes in, and how it goes into a `TorchModel` and out."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from curvdetect._base.messages import one_line
from curvdetect.network._outputs import as_logits

__all__ = [
    "NormalisedModule",
    "TrainableModule",
    "device_of",
    "dtype_of",
    "moved",
    "uncompiled",
    "working_dtype",
]


def uncompiled(module: nn.Module) -> nn.Module:
    """Return what a module was before it was compiled or distributed.

    What is compiled inside it is run as it was before, see :func:`evaluating`.
    """
    while True:
        if isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        elif isinstance(module, nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            return module


def device_of(module: nn.Module) -> torch.device:
    """Return where a module is; the CPU if it holds no tensor."""
    for tensor in chain(module.parameters(), module.buffers()):
        return tensor.device
    return torch.device("cpu")


def moved(module: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a module to a device.

    Raises
    ------
    ValueError
        If torch cannot use that device here.
    """
    try:
        return module.to(device)
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA
        raise ValueError(
            f"device must be one that this torch can use; got {device!r}: "
            f"{one_line(error)}"
        ) from error


def dtype_of(module: nn.Module, x: Tensor) -> torch.dtype:
    """Return the floating dtype of a module's weights; that of `x` if it has none.

    Parameters count first, then buffers, then tensors that are neither.
    """
    loose = (v for part in module.modules() for v in vars(part).values())
    for weight in chain(module.parameters(), module.buffers(), loose):
        if isinstance(weight, Tensor) and weight.is_floating_point():
            return weight.dtype
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return what is computed in around a module of that dtype: single or double."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class NormalisedModule(nn.Module):
    """A `TorchModel` seen as a module: what it calls, and how."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.module: nn.Module = model.module
        self._model = model
        self.training = False  # not eval(): that would change the module itself

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self._model.logits(x)
        return logits

    def train(self, mode: bool = True) -> NormalisedModule:
        """Change nothing: attacks switch modes; the model sees to that itself."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return NormalisedModule, (self._model,)  # a copy calls the copied weights


class TrainableModule(nn.Module):
    """What a `TorchModel` calls, with its normalisation, in whatever mode it is."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.module: nn.Module = model.module
        self._model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return as_logits(self._model._call(x, clamp=self._model.clamp), len(x))
