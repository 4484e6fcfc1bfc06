"""How attacks of other packages are called, so that we can take what they return."""

from __future__ import annotations

from collections.abc import Callable

import foolbox
import torch
from torch import Tensor

from curvdetect import TorchModel

__all__ = ["Run", "held", "kept_where", "seen_by_foolbox"]

Run = Callable[[Tensor, Tensor], Tensor]


def held(model: TorchModel, attack: Run) -> Run:
    """Return an attack that leaves the network as it was, and images within [0, 1].

    An image of which an attack makes something that is not finite stays as it is: where
    gradients vanish, some divide by zero. Weights have no gradients meanwhile, and
    rounding past the bounds is cut off.
    """

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        with model.evaluating():
            found = attack(images, labels).detach().to(images)
        finite = found.isfinite().flatten(1).all(dim=1)
        return kept_where(finite, found, images).clamp(0, 1)

    return attacked


def kept_where(good: Tensor, found: Tensor, images: Tensor) -> Tensor:
    """Return what was found where it is good, and the image elsewhere."""
    return torch.where(good.reshape(-1, *[1] * (images.ndim - 1)), found, images)


def seen_by_foolbox(model: TorchModel) -> foolbox.PyTorchModel:
    """Return the network as foolbox takes it."""
    return foolbox.PyTorchModel(
        model.as_module(), bounds=model.bounds, device=model.device
    )
