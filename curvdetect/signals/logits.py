"""The logits, less the largest: what the network itself says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from curvdetect.signals._around import Around
from curvdetect.signals.base import Signal

__all__ = ["Logits"]


@dataclass(frozen=True)
class Logits(Signal):
    """Logits less the largest one, by class: f_j(x) - max_k f_k(x), at most 0.

    0 at the predicted class; minus the margin of the predicted class at the others.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> X = np.array([[0.5, 1.0, 0.25]])
    >>> CurvatureFeaturizer(model, features=["logits"]).fit_transform(X)
    array([[-0.5 ,  0.  , -0.75]])
    """

    name = "logits"

    def columns(self, n_classes: int) -> list[str]:
        """Name the columns: "logits_class0", ..."""
        return [f"{self.name}_class{c}" for c in range(n_classes)]

    def cost(self, n_classes: int) -> float:
        """Return 1: a forward pass."""
        return 1.0

    def shared(self, n_classes: int) -> Mapping[str, float]:
        """Return all of it: everything else needs the logits too."""
        return {"logits": 1.0}

    def measure(self, around: Around) -> Tensor:
        """Return the logits less the largest, (n, n_classes)."""
        return around.logits - around.logits.amax(dim=1, keepdim=True)
