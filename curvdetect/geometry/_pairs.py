"""Several classes of each point, turned into rows of one margin, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from curvdetect.geometry._margins import PairwiseMargin

__all__ = ["Pairs"]


@dataclass(frozen=True)
class Pairs:
    """The predicted class of each of n points, with k other classes.

    Searches and curvatures work on rows: one for each point and class, n * k of them,
    those of a point next to each other. This is the place that knows the order.

    Parameters
    ----------
    predicted : Tensor of shape (n,), int64
        i, the class of each point.
    classes : Tensor of shape (n, k), int64
        j, the classes on the other sides.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import Pairs
    >>> pairs = Pairs(torch.tensor([0, 1]), torch.tensor([[1, 2], [2, 0]]))
    >>> pairs.rows(torch.tensor([3.0, 5.0]))
    tensor([3., 3., 5., 5.])
    >>> pairs.by_point(torch.tensor([1, 2, 3, 4]))
    tensor([[1, 2],
            [3, 4]])
    """

    predicted: Tensor
    classes: Tensor

    @property
    def k(self) -> int:
        """How many classes each point has."""
        return self.classes.shape[1]

    def rows(self, x: Tensor) -> Tensor:
        """Repeat what belongs to points, once for each of their classes.

        Parameters
        ----------
        x : Tensor of shape (n, ...)
            The points, or something of theirs.

        Returns
        -------
        Tensor of shape (n * k, ...)
            The rows of one point follow each other.
        """
        return x.repeat_interleave(self.k, dim=0)

    def by_point(self, values: Tensor) -> Tensor:
        """Give what belongs to rows an axis for the classes of a point.

        Parameters
        ----------
        values : Tensor of shape (n * k, ...)
            Something of each row.

        Returns
        -------
        Tensor of shape (n, k, ...)
            The same.
        """
        return values.reshape(*self.classes.shape, *values.shape[1:])

    def margin(self, logits: Callable[[Tensor], Tensor]) -> PairwiseMargin:
        """Return the margin of every row.

        Parameters
        ----------
        logits : callable
            f: (m, *input_shape) -> (m, n_classes), each row for itself.

        Returns
        -------
        PairwiseMargin
            F_ij of n * k rows.
        """
        return PairwiseMargin(logits, self.rows(self.predicted), self.classes.flatten())

    def select(self, columns: Tensor) -> Pairs:
        """Keep some of the classes of each point, in that order.

        Parameters
        ----------
        columns : Tensor of shape (n, m), int64
            Their positions among the k.

        Returns
        -------
        Pairs
            With m classes a point.
        """
        return Pairs(self.predicted, self.classes.gather(1, columns))

    def take(self, points: Tensor) -> Pairs:
        """Return the pairs of some points, in that order, repeats allowed.

        Parameters
        ----------
        points : Tensor of shape (m,), int64, or (n,), bool
            Which.

        Returns
        -------
        Pairs
            Of these points.
        """
        return Pairs(self.predicted[points], self.classes[points])
