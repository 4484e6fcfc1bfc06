"""The distance to the nearest boundaries, by the gradient at the image alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from curvdetect._base.checks import check_count
from curvdetect.signals._around import Around
from curvdetect.signals.base import Signal

__all__ = ["FirstOrder"]


@dataclass(frozen=True)
class FirstOrder(Signal):
    r"""Distance to the nearest boundaries to first order: F(x) / \|grad F(x)\|.

    Of the classes with the largest logits, the nearest first; in input units. What is
    farther than the diagonal of the input range, or has no gradient, counts as that.

    Parameters
    ----------
    n_nearest : int, default=2
        How many boundaries; each costs a backward pass.

    Examples
    --------
    Planes at the distances 1 and 2.

    >>> import numpy as np
    >>> import torch
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> from curvdetect.signals import FirstOrder
    >>> class Planes(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.stack([0 * x[:, 0], x[:, 0] - 1, 3 * x[:, 1] - 6], dim=1)
    >>> model = TorchModel(Planes().eval(), input_shape=(2,), bounds=(-5, 5))
    >>> featurizer = CurvatureFeaturizer(model, features=[FirstOrder()])
    >>> featurizer.fit_transform(np.zeros((1, 2)))
    array([[1., 2.]])
    """

    n_nearest: int = 2
    name = "first_order"

    def __post_init__(self) -> None:
        check_count("n_nearest", self.n_nearest)

    def columns(self, n_classes: int) -> list[str]:
        """Name the columns: "first_order_nearest0", ..."""
        k = min(self.n_nearest, n_classes - 1)
        return [f"{self.name}_nearest{rank}" for rank in range(k)]

    def cost(self, n_classes: int) -> float:
        """Return the cost of a forward pass, and a backward pass a boundary."""
        return sum(self.shared(n_classes).values())

    def shared(self, n_classes: int) -> Mapping[str, float]:
        """Return all of it: gradients at the image are also where searches begin."""
        k = min(self.n_nearest, n_classes - 1)
        return {"logits": 1.0, "gradients": 2.0 * k}

    def measure(self, around: Around) -> Tensor:
        """Return the distances, (n, k), in input units."""
        diagonal = around.diagonal
        distances = around.linearised(self.n_nearest).distances
        distances = distances.nan_to_num(diagonal, diagonal).clamp(max=diagonal)
        return distances.sort(dim=1).values
