"""Margins around points to first order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvdetect._base.rows import dot, per_row
from curvdetect.geometry._pairs import Pairs

__all__ = ["Linearisation"]


@dataclass(frozen=True)
class Linearisation:
    r"""k margins of each of n points, to first order: F(x) + g . (z - x).

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        f(x).
    pairs : Pairs
        The classes of the margins.
    value : Tensor of shape (n, k)
        F(x), in logits.
    gradient : Tensor of shape (n, k, *input_shape)
        g = dF/dx.
    """

    logits: Tensor
    pairs: Pairs
    value: Tensor
    gradient: Tensor

    @property
    def slope(self) -> Tensor:
        r"""\|g\|, of shape (n, k)."""
        return self.gradient.flatten(2).norm(dim=2)

    @property
    def distances(self) -> Tensor:
        r"""F / \|g\|, of shape (n, k), in input units: to each linearised boundary.

        Negative where the other class has the larger logit. Infinite or NaN where the
        gradient vanishes.
        """
        return self.value / self.slope

    def step(self) -> Tensor:
        r"""Return the way to each linearised boundary, - F g / \|g\|^2.

        Returns
        -------
        Tensor of shape (n * k, *input_shape)
            In the order of ``pairs.rows(x)``; 0 where there is no such boundary.
        """
        gradient = self.gradient.flatten(0, 1)
        factor = self.value.flatten() / dot(gradient, gradient)
        factor = factor.nan_to_num(0, posinf=0, neginf=0)
        return -per_row(factor, gradient) * gradient

    def select(self, columns: Tensor) -> Linearisation:
        """Keep some of the classes of each point, in that order.

        Parameters
        ----------
        columns : Tensor of shape (n, m), int64
            Their positions among the k.

        Returns
        -------
        Linearisation
            With m classes a point.
        """
        of_point = torch.arange(len(columns), device=columns.device)[:, None]
        return Linearisation(
            self.logits,
            self.pairs.select(columns),
            self.value.gather(1, columns),
            self.gradient[of_point, columns],
        )

    def take(self, points: Tensor) -> Linearisation:
        """Return what belongs to some points, in that order, repeats allowed.

        Parameters
        ----------
        points : Tensor of shape (m,), int64, or (n,), bool
            Which.

        Returns
        -------
        Linearisation
            Of these points.
        """
        return Linearisation(
            self.logits[points],
            self.pairs.take(points),
            self.value[points],
            self.gradient[points],
        )

    def nearest_first(self) -> Linearisation:
        """Sort the classes of each point by distance.

        Returns
        -------
        Linearisation
            Those of equal distance in their former order; without a gradient, last.
        """
        # NaN sorts last.
        return self.select(self.distances.argsort(dim=1, stable=True))

    def joined(self, other: Linearisation) -> Linearisation:
        """Append the classes of another linearisation at the same points.

        Parameters
        ----------
        other : Linearisation
            Of the same points and predicted classes.

        Returns
        -------
        Linearisation
            With the classes of both.
        """
        classes = torch.cat([self.pairs.classes, other.pairs.classes], dim=1)
        return Linearisation(
            self.logits,
            Pairs(self.pairs.predicted, classes),
            torch.cat([self.value, other.value], dim=1),
            torch.cat([self.gradient, other.gradient], dim=1),
        )
