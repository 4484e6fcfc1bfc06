"""What is the same for all images: settings, and what `fit` drew and learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from curvdetect.geometry import CurvatureMethod

__all__ = ["Setup", "Where"]

#: Where curvature is taken.
Where = Literal["boundary", "input"]

#: At least so many classes are compared by first-order distance before the nearest are
#: chosen; with very many classes only those of the largest logits are.
_MIN_COMPARED = 10
#: The same where some are chosen by curvature. On the development images of six LeNets,
#: seven served as well as all nine.
_MIN_COMPARED_CURVED = 7
#: Forward-equivalents of the way to one boundary point, on trained networks: two points
#: with gradient, some third of the rows a third one, and a forward pass at the end.
_SEARCH_COST = 8


@dataclass(frozen=True)
class Setup:
    """Settings that signals share, settled when the featurizer is fitted.

    Attributes
    ----------
    n_classes : int
        Number of logits, L.
    input_shape : tuple of int
        Shape of one input.
    n_boundaries : int
        k, how many boundaries around an image are measured.
    n_curved : int
        How many of them are chosen by their curvature at the image.
    tol : float
        How near to a boundary its search gets before the last step.
    at : {"boundary", "input"}
        Where curvature is taken.
    method : {"forward", "gradient", "autodiff"}
        How second derivatives are taken.
    steps : tuple of float
        Finite steps h, in input units: the featurizer's own, or the typical distance to
        the nearest boundary.
    directions : ndarray of shape (m, *input_shape), or None
        Unit directions; None for all: an orthonormal basis.
    """

    n_classes: int
    input_shape: tuple[int, ...]
    n_boundaries: int
    n_curved: int = 0
    tol: float = 0.1
    at: Where = "boundary"
    method: CurvatureMethod = "forward"
    steps: tuple[float, ...] = ()
    directions: npt.NDArray[Any] | None = None

    @property
    def n_candidates(self) -> int:
        """How many classes are compared before some are chosen."""
        least = _MIN_COMPARED_CURVED if self.n_curved else _MIN_COMPARED
        return min(max(2 * self.n_boundaries, least), self.n_classes - 1)

    @property
    def n_values(self) -> int:
        """Number of values of one input, d."""
        return math.prod(self.input_shape)

    # Costs, in forward-equivalents an image: by the piece of work, since what several
    # signals need is done once.

    def cost_of_choice(self) -> dict[str, float]:
        """Return what it costs to choose the boundaries, piece by piece."""
        cost = {"logits": 1.0, "gradients": 2.0 * self.n_candidates}
        if self.n_curved:
            cost |= self.cost_of_decrease(self.steps[0])
        return cost

    def cost_of_search(self) -> dict[str, float]:
        """Return what it costs to find a point on each of them."""
        return {
            **self.cost_of_choice(),
            "boundary": float(_SEARCH_COST * self.n_boundaries),
        }

    def cost_of_decrease(self, step: float) -> dict[str, float]:
        """Return what the mean decrease of all logits around an image costs."""
        m = self.n_values if self.directions is None else len(self.directions)
        return {"logits": 1.0, f"decrease at {step:g}": 2.0 * m}
