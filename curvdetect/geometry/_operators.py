"""The Hessian, or the shape operator, of every row: a matrix known by its products."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice, check_positive
from curvdetect._base.rows import batches
from curvdetect.geometry._derivatives import (
    hessian_product,
    margin_value_and_gradient,
    warn_if_piecewise_linear,
)
from curvdetect.geometry._directions import CoordinateAxes, Householder
from curvdetect.geometry._margins import Margin, take_rows

__all__ = ["WORKING_NUMBERS", "Operator", "ProductMethod"]

#: How Hessian-vector products are taken.
ProductMethod: TypeAlias = Literal["gradient", "autodiff"]

#: Numbers held at a time by the rows that are worked on together.
WORKING_NUMBERS = 2**26


class Operator:
    r"""One symmetric matrix for each of n points, known by its products.

    Parameters
    ----------
    function : callable
        F: (n, *input_shape) -> (n,).
    x : Tensor of shape (n, *input_shape)
        Points.
    tangent : bool
        Whether it is the shape operator - P H P / \|g\| of the level sets, on the
        tangent space, instead of the Hessian H.
    method : {"gradient", "autodiff"}
        Differences of gradients, or exact products.
    step : float
        h of the differences.
    start : tuple of Tensor, optional
        F and its gradient at `x`, if they are known already.
    batch_size : int or None
        Rows given to `function` at a time.

    Attributes
    ----------
    points : Tensor of shape (n, d)
        The points.
    normal : Tensor of shape (n, d), or None
        Unit normals of the tangent spaces.
    axes : Householder or CoordinateAxes
        An orthonormal basis of the space that the matrices act on.
    dimension : int
        Of that space: d, or d - 1.
    """

    def __init__(
        self,
        function: Margin,
        x: Tensor,
        *,
        tangent: bool,
        method: str,
        step: float,
        start: tuple[Tensor, Tensor] | None,
        batch_size: int | None,
    ) -> None:
        check_choice("method", method, get_args(ProductMethod))
        check_positive("step", step)
        if x.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"points must be float32 or float64 for eigenvalues; got {x.dtype}"
            )
        if start is None:
            start = margin_value_and_gradient(function, x, batch_size=batch_size)
        self.function, self.x, self.start = function, x, start
        self.method, self.step, self.batch_size = method, step, batch_size
        self.points = x.flatten(1)
        self.normal: Tensor | None = None
        self.axes: Householder | CoordinateAxes = CoordinateAxes(self.points)
        if tangent:
            gradient = start[1].flatten(1)
            self.steepness = gradient.norm(dim=1, keepdim=True)
            normal = gradient / self.steepness
            # Where the gradient vanishes any normal will do: products are not finite.
            self.normal = normal.where(normal.isfinite(), normal.shape[1] ** -0.5)
            self.axes = Householder(self.normal)
        self.dimension = self.axes.dimension

    def __call__(self, rows: Tensor, v: Tensor) -> Tensor:
        """Apply the matrices of some rows to a vector each, both of shape (m, d)."""
        image = hessian_product(
            take_rows(self.function, rows),
            self.x[rows],
            v.reshape(-1, *self.x.shape[1:]),
            method=self.method,
            step=self.step,
            gradient=self.start[1][rows],
        ).flatten(1)
        if self.normal is None:
            return image
        n = self.normal[rows]
        return -(image - (image * n).sum(1, keepdim=True) * n) / self.steepness[rows]

    def on_blocks(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """Apply the matrix of each row to all its vectors, (len(rows), m, d)."""
        pairs = rows.repeat_interleave(blocks.shape[1])
        flat = blocks.flatten(0, 1)
        runs = batches(len(flat), self.batch_size, flat.device)
        images = torch.cat([self(pairs[run], flat[run]) for run in runs])
        return images.reshape_as(blocks)

    def chunks(self, numbers_per_row: int) -> list[Tensor]:
        """Cut the rows into runs that need `WORKING_NUMBERS` at the most."""
        size = max(1, WORKING_NUMBERS // numbers_per_row)
        return list(batches(len(self.points), size, self.points.device))

    def warn_if_wrongly_zero(self, values: Tensor, *, stacklevel: int) -> None:
        """Warn if all exact values are zero since the function is piecewise linear."""
        if self.method != "autodiff" or not values.numel() or bool(values.any()):
            return
        rows = torch.arange(len(self.points), device=self.points.device)
        v = self.axes.columns(rows, torch.zeros_like(rows))
        warn_if_piecewise_linear(
            self.function,
            self.x,
            v.reshape_as(self.x),
            step=self.step,
            start=self.start,
            batch_size=self.batch_size,
            stacklevel=stacklevel + 1,
        )
