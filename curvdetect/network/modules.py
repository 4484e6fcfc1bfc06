"""Torch modules: what one computes in, and how it goes into a `TorchModel` and out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["NormalisedModule", "device_of", "dtype_of", "uncompiled"]


def uncompiled(module: nn.Module) -> nn.Module:
    """Return what a module was before torch.compile, if it was compiled.

    Compiled, a ResNet-20 gave wrong curvatures (torch 2.15, on a CPU).
    """
    return getattr(module, "_orig_mod", module)


def device_of(module: nn.Module) -> torch.device:
    """Return where a module is; the CPU if it holds no tensor."""
    for tensor in chain(module.parameters(), module.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(module: nn.Module, x: Tensor) -> torch.dtype:
    """Return a module's floating dtype; that of `x` if it has none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


class NormalisedModule(nn.Module):
    """A `TorchModel` seen as a module: what it calls, and how."""

    def __init__(self, module: nn.Module, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module
        self._logits = logits
        self.training = False  # not eval(): that would change the module itself

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self._logits(x)

    def train(self, mode: bool = True) -> NormalisedModule:
        """Change nothing: attacks switch modes; the model sees to that itself."""
        return self
