"""The distance to the point found on each boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from curvdetect.signals._around import Around
from curvdetect.signals.base import BoundarySignal
from curvdetect.signals.setup import Setup

__all__ = ["Distance"]


@dataclass(frozen=True)
class Distance(BoundarySignal):
    r"""L2 distance \|z - x\| from the image to the point found on each boundary.

    In input units; not the shortest, see :class:`~curvdetect.CurvatureFeaturizer`.

    Examples
    --------
    The unit circle, seen from inside.

    >>> import numpy as np
    >>> import torch
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> class Circle(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.stack([1 - x.norm(dim=1), x.norm(dim=1) - 1], dim=1)
    >>> model = TorchModel(Circle().eval(), input_shape=(2,), bounds=None)
    >>> featurizer = CurvatureFeaturizer(model, features=["distance"])
    >>> featurizer.fit_transform(np.array([[0.3, 0.4]])).round(3)
    array([[nan, 0.5]])
    """

    setup: Setup | None = None
    name = "distance"

    def resolved(self, setup: Setup) -> Distance:
        """Return the signal for the featurizer's boundaries."""
        return replace(self, setup=setup)

    def blank(self, diagonal: float) -> float:
        """Return the diagonal: what was not found is far away."""
        return diagonal

    def cost(self, n_classes: int) -> float:
        """Return the cost of the search."""
        return sum(self.shared(n_classes).values())

    def shared(self, n_classes: int) -> Mapping[str, float]:
        """Return all of it: curvature at the boundary needs the same search."""
        return {} if self.setup is None else self.setup.cost_of_search()

    def measure_boundaries(self, around: Around) -> Tensor:
        """Return the distances, (n, 1, k)."""
        return around.pairs.by_point(around.boundary.distances)[:, None]
