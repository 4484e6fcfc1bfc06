"""The average curvature of each boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice
from curvdetect.geometry import CurvatureMethod, mean_curvature
from curvdetect.signals._around import Around
from curvdetect.signals._steps import SteppedSignal
from curvdetect.signals.setup import Setup, Where

__all__ = ["Curvature"]

#: Forward-equivalents of a direction: two forward passes, a forward and a backward one,
#: or these and a backward pass through both.
_COST = {"forward": 2.0, "gradient": 3.0, "autodiff": 9.0}


@dataclass(frozen=True)
class Curvature(SteppedSignal):
    r"""Average curvature of each boundary, in 1 / input units.

    The mean of - v^T H v / \|g\| over random unit tangents v, at scale h; see
    :func:`curvdetect.geometry.mean_curvature`. Positive where the predicted region is
    locally convex.

    Parameters
    ----------
    step : float or sequence of float, optional
        h, L2 lengths in input units; the featurizer's by default.
    at : {"boundary", "input"}, optional
        At a boundary point, or - an approximation - on the level set of the margin
        through the image itself; the featurizer's by default.
    method : {"forward", "gradient", "autodiff"}, optional
        How second derivatives are taken; the featurizer's by default. Only "forward"
        is differentiable in the image.

    Examples
    --------
    +1 inside the unit circle.

    >>> import numpy as np
    >>> import torch
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> from curvdetect.signals import Curvature
    >>> class Circle(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.stack([1 - x.norm(dim=1), x.norm(dim=1) - 1], dim=1)
    >>> model = TorchModel(Circle().eval(), input_shape=(2,), bounds=None)
    >>> featurizer = CurvatureFeaturizer(model, features=[Curvature(step=1e-3)])
    >>> featurizer.fit_transform(np.array([[0.3, 0.4]])).round(3)
    array([[nan,  1.]])
    """

    step: float | Sequence[float] | None = None
    at: Where | None = None
    method: CurvatureMethod | None = None
    setup: Setup | None = None
    name = "curvature"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("at", self.at, (*get_args(Where), None))
        check_choice("method", self.method, (*get_args(CurvatureMethod), None))

    def resolved(self, setup: Setup) -> Curvature:
        """Return the signal with its steps, place and method filled in."""
        return replace(
            self,
            setup=setup,
            step=self.steps_in(setup),
            at=self.at or setup.at,
            method=self.method or setup.method,
        )

    def cost(self, n_classes: int) -> float:
        """Return the cost of choice and search, and of each direction and step."""
        setup = self.setup
        if setup is None:
            return 0.0
        m = setup.n_values - 1 if setup.directions is None else len(setup.directions)
        each = _COST[self.method or setup.method] * m * len(self.steps_in(setup))
        return sum(self.shared(n_classes).values()) + each * setup.n_boundaries

    def shared(self, n_classes: int) -> Mapping[str, float]:
        """Return the cost of choosing boundaries and of finding points on them."""
        if self.setup is None:
            return {}
        at_boundary = (self.at or self.setup.at) == "boundary"
        return (
            self.setup.cost_of_search() if at_boundary else self.setup.cost_of_choice()
        )

    def measure_boundaries(self, around: Around) -> Tensor:
        """Return the curvatures, (n, n_steps, k); NaN where the gradient vanishes."""
        at, pairs = around.located(self.at or around.setup.at), around.pairs
        columns = [
            mean_curvature(
                around.margin,
                at.points,
                method=self.method or around.setup.method,
                n_directions="all",
                directions=around.directions,
                step=step,
                evaluated=(at.value, at.gradient),
                batch_size=around.batch_size,
            )
            for step in self.steps_in(around.setup)
        ]
        return torch.stack([pairs.by_point(column) for column in columns], dim=1)
