"""The way to the nearest boundary point: projections on linearised boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect._base.rows import dot, per_row
from curvdetect.geometry._derivatives import margin_value_and_gradient
from curvdetect.geometry._margins import Margin

__all__ = ["approach", "foot"]

#: So many projections go all the way; further ones go less and less, because on a
#: piecewise-linear function full ones end up jumping to and fro across kinks.
_N_FULL = 2
#: The multiplier of a projection within bounds: up to 1,000 times that without, to
#: five digits.
_N_DOUBLINGS, _N_BISECTIONS = 10, 24


def approach(
    margin: Margin,
    x: Tensor,
    n_projections: int,
    bounds: tuple[float, float] | None,
    evaluated: tuple[Tensor, Tensor],
    batch_size: int | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Project x on the linearised boundary again and again; return z, F(z), g(z)."""
    z = x
    for n_before in range(n_projections):
        share = 1.0 if n_before < _N_FULL else 1 / (1 + n_before / 5)
        z = torch.lerp(z, foot(x, z, evaluated, bounds), share)
        evaluated = margin_value_and_gradient(margin, z, batch_size=batch_size)
    return z, evaluated


def foot(
    x: Tensor,
    z: Tensor,
    at_z: tuple[Tensor, Tensor],
    bounds: tuple[float, float] | None,
) -> Tensor:
    """Return the points nearest to x on the boundary linearised at z, by F and g there.

    z itself where the gradient vanishes.
    """
    value, gradient = at_z
    along = dot(gradient, z - x)
    nearest = x + per_row(_multiplier(x, gradient, along - value, bounds), x) * gradient
    if bounds is not None:
        nearest = nearest.clamp(*bounds)
    return nearest.where(per_row(nearest.flatten(1).isfinite().all(1), x), z)


def _multiplier(
    x: Tensor, gradient: Tensor, rest: Tensor, bounds: tuple[float, float] | None
) -> Tensor:
    """Return the m for which clamp(x + m g) is nearest to x on {g . (z - x) = rest}.

    Without bounds, rest / |g|^2. Within them what m reaches is monotone, so m is
    doubled until it suffices and then bisected; no network is called.
    """
    m = rest / dot(gradient, gradient)
    if bounds is None:
        return m

    def falls_short(m: Tensor) -> Tensor:
        way = (x + per_row(m, x) * gradient).clamp(*bounds) - x
        return dot(gradient, way) * rest.sign() < rest.abs()

    for _ in range(_N_DOUBLINGS):
        m = torch.where(falls_short(m), 2 * m, m)
    low, high = torch.zeros_like(m), m
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        short = falls_short(middle)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return high
