"""Second derivatives of a function at points, by differences or exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice, check_positive
from curvdetect._base.rows import batches, dot
from curvdetect._base.second_derivatives import (
    first_gradient,
    second_gradient,
    twice_differentiable,
)
from curvdetect._base.warn import warn
from curvdetect.geometry._derivatives import (
    margin_gradient,
    margin_value,
    margin_value_and_gradient,
    recorded_value_and_gradient,
)
from curvdetect.geometry._margins import Margin, take_rows

__all__ = ["CurvatureMethod", "Differences"]

#: How second derivatives are taken.
CurvatureMethod: TypeAlias = Literal["forward", "gradient", "autodiff"]


@dataclass(frozen=True)
class Differences:
    """What second derivatives of a function at n points are made from.

    Where `x` requires a gradient and second differences of values are taken, they are
    differentiable through those values; `gradient` is a constant.

    Parameters
    ----------
    function : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    value, gradient : Tensor of shape (n,) and (n, *input_shape)
        Of the function there.
    method : {"forward", "gradient", "autodiff"}
        Differences of values, of gradients, or none.
    step : float
        h of the differences, an L2 length in input units.
    batch_size : int or None
        Rows given to `function` at a time.
    """

    function: Margin
    x: Tensor
    value: Tensor
    gradient: Tensor
    method: str
    step: float
    batch_size: int | None

    @classmethod
    def at(
        cls,
        function: Margin,
        x: Tensor,
        *,
        method: str,
        step: float,
        evaluated: tuple[Tensor, Tensor] | None,
        batch_size: int | None,
    ) -> Differences:
        """Check parameters; evaluate the function at x unless `evaluated` knows it."""
        check_choice("method", method, get_args(CurvatureMethod))
        check_positive("step", step)
        recorded = method == "forward" and torch.is_grad_enabled() and x.requires_grad
        if not recorded:
            x = x.detach()
        if evaluated is None:
            evaluate = (
                recorded_value_and_gradient if recorded else margin_value_and_gradient
            )
            evaluated = evaluate(function, x, batch_size=batch_size)
        value, gradient = evaluated
        if not recorded:
            value = value.detach()
        return cls(function, x, value, gradient.detach(), method, step, batch_size)

    @property
    def steepness(self) -> Tensor:
        r"""\|g\| of every point, (n,)."""
        return self.gradient.flatten(1).norm(dim=1)

    def second(self, m: int, directions: Callable[[Tensor], Tensor]) -> Tensor:
        """Return v^T H v of pair p = (point p // m, direction p % m), as (n, m).

        `directions` makes the unit directions of some pairs, shape (len(pairs), d), so
        that no more than a batch of them is held.
        """
        seconds = []
        for pairs in batches(len(self.x) * m, self.batch_size, self.x.device):
            v = directions(pairs).reshape(-1, *self.x.shape[1:])
            if self.method == "forward":
                seconds.append(self._second_difference(pairs // m, v))
            else:
                seconds.append(dot(self.product(pairs // m, v), v))
        return torch.cat(seconds).reshape(-1, m)

    def product(self, rows: Tensor, v: Tensor) -> Tensor:
        """Return H v at some points, of a vector each: (len(rows), *input_shape)."""
        function, x = take_rows(self.function, rows), self.x[rows]
        if self.method == "gradient":
            ahead = margin_gradient(function, x + self.step * v)
            return (ahead - self.gradient[rows]) / self.step
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            with twice_differentiable():
                value = function(leaf).sum()
            gradient = first_gradient(value, leaf)
            if not gradient.requires_grad:  # affine: nothing left to differentiate
                return torch.zeros_like(x)
            return second_gradient(dot(gradient, v).sum(), leaf)

    def warn_if_wrongly_zero(
        self,
        values: Tensor,
        directions: Callable[[Tensor], Tensor],
    ) -> None:
        """Warn if all exact values are zero since the function is piecewise linear.

        An affine function has zero derivatives too, and rightly so: what tells the two
        apart is a second difference over a finite step. `directions` makes a unit
        direction for each of some points.
        """
        if self.method != "autodiff" or not values.numel() or bool(values.any()):
            return
        rows = torch.arange(len(self.x), device=self.x.device)
        v = directions(rows).reshape_as(self.x)
        bent = -2 * self.value
        for probe in (self.x + self.step * v, self.x - self.step * v):
            bent += margin_value(self.function, probe, batch_size=self.batch_size)
        if bool((bent.abs() > 1e-4 * self.step * self.steepness).any()):
            warn(
                "every exact second derivative is zero, but the function is not flat "
                f"at step={self.step:g}: it is piecewise linear (ReLU, max-pooling). "
                'Use method="forward" or "gradient", which measure curvature at a '
                "finite step."
            )

    def _second_difference(self, rows: Tensor, v: Tensor) -> Tensor:
        function, x, value = take_rows(self.function, rows), self.x[rows], self.value
        with torch.set_grad_enabled(self.x.requires_grad):
            ahead, behind = function(x + self.step * v), function(x - self.step * v)
            second = (ahead - value[rows]) + (behind - value[rows])
            return second / self.step**2
