"""Networks without kinks, whose exact second derivatives are not zero."""

from __future__ import annotations

import copy

from torch import nn

__all__ = ["smoothed"]


def smoothed(module: nn.Module) -> nn.Module:
    """Return the network in double precision without kinks."""
    module = copy.deepcopy(module)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.ReLU):
            module.set_submodule(name, nn.Softplus(beta=10))
        elif isinstance(layer, nn.MaxPool2d):
            module.set_submodule(name, nn.AvgPool2d(2))
    return module.double().eval()
