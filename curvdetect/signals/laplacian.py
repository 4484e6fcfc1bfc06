"""How much each margin falls, on average, around the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from curvdetect.signals._around import Around
from curvdetect.signals._steps import SteppedSignal
from curvdetect.signals.setup import Setup

__all__ = ["Laplacian"]


@dataclass(frozen=True)
class Laplacian(SteppedSignal):
    r"""Mean decrease of each margin around the image: F(x) - E_u[F(x + h u)].

    Over random unit directions u, both ways; in logits. It is *minus* a Laplacian at
    scale h: -h^2 / (2 d) times the trace of the Hessian of F, positive where the
    predicted region is locally convex, as curvature is: it is the numerator of
    Goldman's formula without the division by the gradient. The passes serve all
    classes at once.

    Parameters
    ----------
    step : float or sequence of float, optional
        h, L2 lengths in input units; the featurizer's by default.

    Examples
    --------
    For F = 1 - 3 \|x\|^2 it is 3 h^2, everywhere.

    >>> import numpy as np
    >>> import torch
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> from curvdetect.signals import Laplacian
    >>> class Bowl(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.stack([1 - 3 * x.square().sum(1), 0 * x[:, 0]], dim=1)
    >>> model = TorchModel(Bowl().eval(), input_shape=(2,))
    >>> featurizer = CurvatureFeaturizer(model, features=[Laplacian(step=0.5)])
    >>> featurizer.fit_transform(np.array([[0.1, 0.2]])).round(6)
    array([[ nan, 0.75]])
    """

    step: float | Sequence[float] | None = None
    setup: Setup | None = None
    name = "laplacian"

    def resolved(self, setup: Setup) -> Laplacian:
        """Return the signal with its steps, for the featurizer's boundaries."""
        return replace(self, setup=setup, step=self.steps_in(setup))

    def cost(self, n_classes: int) -> float:
        """Return the cost of two forward passes a direction and step."""
        return sum(self.shared(n_classes).values())

    def shared(self, n_classes: int) -> Mapping[str, float]:
        """Return all of it: choosing boundaries by curvature needs the same."""
        if self.setup is None:
            return {}
        cost = self.setup.cost_of_choice()
        for step in self.steps_in(self.setup):
            cost |= self.setup.cost_of_decrease(step)
        return cost

    def measure_boundaries(self, around: Around) -> Tensor:
        """Return the decrease of each margin, (n, n_steps, k), in logits."""
        columns = [
            around.margins(around.pairs, around.decrease(step))
            for step in self.steps_in(around.setup)
        ]
        return torch.stack(columns, dim=1)
