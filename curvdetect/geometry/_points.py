"""Points on boundaries, as the searches return them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["BoundaryPoints"]


class BoundaryPoints(NamedTuple):
    r"""Points on boundaries; see :func:`find_boundary` and :func:`step_to_boundary`.

    Attributes
    ----------
    points : Tensor of shape (n, *input_shape)
        z; where `found` is False, where the search ended.
    distances : Tensor of shape (n,)
        L2 norm of z - x, in input units.
    found : Tensor of shape (n,), bool
        Whether a boundary was reached: a change of sign was enclosed, or the
        linearised boundary is within the tolerance.
    value : Tensor of shape (n,)
        F(z): what is left of the margin, 0 on the boundary itself.
    gradient : Tensor of shape (n, *input_shape)
        g at the last point where the search took it: z, or a point next to it, one
        step before or beyond.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import find_boundary
    >>> plane = lambda x: 1 - x[:, 0]
    >>> found = find_boundary(plane, torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    >>> found.take(torch.tensor([1])).distances
    tensor([2.])
    """

    points: Tensor
    distances: Tensor
    found: Tensor
    value: Tensor
    gradient: Tensor

    def take(self, rows: Tensor) -> BoundaryPoints:
        """Return some rows, in that order, repeats allowed.

        Parameters
        ----------
        rows : Tensor of shape (m,), int64
            Positions.

        Returns
        -------
        BoundaryPoints
            Those of these rows.
        """
        return BoundaryPoints(*(part[rows] for part in self))

    def replaced(self, rows: Tensor, others: BoundaryPoints) -> BoundaryPoints:
        """Return a copy in which some rows are others.

        Parameters
        ----------
        rows : Tensor of shape (m,), int64
            Positions, each once.
        others : BoundaryPoints
            What is to stand there, m rows.

        Returns
        -------
        BoundaryPoints
            n rows.
        """
        pairs = zip(self, others, strict=True)
        return BoundaryPoints(*(part.index_put((rows,), new) for part, new in pairs))
