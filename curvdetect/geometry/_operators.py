"""The Hessian, or the shape operator, of every row: a matrix known by its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from curvdetect._base.rows import batches
from curvdetect.geometry._differences import Differences
from curvdetect.geometry._directions import TangentSpace, WholeSpace

__all__ = ["WORKING_NUMBERS", "Operator", "ProductMethod", "check_precision"]

#: How Hessian-vector products are taken.
ProductMethod: TypeAlias = Literal["gradient", "autodiff"]

#: Numbers held at a time by the rows that are worked on together.
WORKING_NUMBERS = 2**26


class Operator:
    r"""One symmetric matrix for each of n points, known by its products.

    Parameters
    ----------
    differences : Differences
        Of the function, at the points.
    tangent : bool
        Whether it is the shape operator - P H P / \|g\| of the level sets, on the
        tangent space, instead of the Hessian H.

    Attributes
    ----------
    points : Tensor of shape (n, d)
        The points.
    normal : Tensor of shape (n, d), or None
        Unit normals of the tangent spaces.
    space : TangentSpace or WholeSpace
        What the matrices act on.
    dimension : int
        Of that space: d, or d - 1.
    """

    def __init__(self, differences: Differences, *, tangent: bool) -> None:
        self.differences = differences
        self.points = differences.x.detach().flatten(1)
        self.normal: Tensor | None = None
        self.space: TangentSpace | WholeSpace = WholeSpace(self.points)
        if tangent:
            self.steepness = differences.steepness[:, None]
            normal = differences.gradient.flatten(1) / self.steepness
            # Where the gradient vanishes any normal will do: products are not finite.
            self.has_normal = normal.isfinite().all(1, keepdim=True)
            self.normal = normal.where(normal.isfinite(), normal.shape[1] ** -0.5)
            self.space = TangentSpace(self.normal)
        self.dimension = self.space.dimension

    def __call__(self, rows: Tensor, v: Tensor) -> Tensor:
        """Apply the matrices of some rows to a vector each, both of shape (m, d)."""
        v = v.reshape(-1, *self.differences.x.shape[1:])
        image = self.differences.product(rows, v).flatten(1)
        if self.normal is None:
            return image
        n = self.normal[rows]
        return -(image - (image * n).sum(1, keepdim=True) * n) / self.steepness[rows]

    def on_blocks(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """Apply the matrix of each row to all its vectors, (len(rows), m, d)."""
        pairs = rows.repeat_interleave(blocks.shape[1])
        flat = blocks.flatten(0, 1)
        runs = batches(len(flat), self.differences.batch_size, flat.device)
        images = torch.cat([self(pairs[run], flat[run]) for run in runs])
        return images.reshape_as(blocks)

    def along(self, m: int, directions: Callable[[Tensor], Tensor]) -> Tensor:
        """Return v^T A v of m unit vectors v of the space, as (n, m); NaN without A.

        Directions as those of :meth:`Differences.second`.
        """
        second = self.differences.second(m, directions)
        if self.normal is None:
            return second
        return -second.where(self.has_normal, torch.nan) / self.steepness

    def chunks(self, numbers_per_row: int) -> list[Tensor]:
        """Cut the rows into runs that need `WORKING_NUMBERS` at the most."""
        size = max(1, WORKING_NUMBERS // numbers_per_row)
        return list(batches(len(self.points), size, self.points.device))

    def warn_if_wrongly_zero(self, values: Tensor) -> None:
        """Warn if all exact values are zero since the function is piecewise linear."""
        self.differences.warn_if_wrongly_zero(
            values,
            lambda rows: self.space.columns(rows, torch.zeros_like(rows)),
        )


def check_precision(x: Tensor) -> None:
    """Refuse points of a type that linear algebra cannot take."""
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"points must be float32 or float64 for eigenvalues; got {x.dtype}"
        )
