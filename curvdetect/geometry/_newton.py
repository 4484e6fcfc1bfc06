"""The cheap way to a boundary point, for those who need very many."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.rows import per_row
from curvdetect.geometry._boundary import find_boundary, reach
from curvdetect.geometry._derivatives import margin_value, margin_value_and_gradient
from curvdetect.geometry._margins import Margin, take_rows

__all__ = ["NearBoundary", "step_to_boundary"]

#: Newton's method has come as near as it ever will by then, or circles around kinks.
_MAX_STEPS = 5
#: In parts of `tol` times the distance: how far the last step may lead along the
#: linearised boundary, and how far from the boundary it may end. Chosen on development
#: images of six LeNets, where AUROC after PGD rose by 0.004 and relabelling by 0.012
#: against plain Newton steps.
_SIDEWAYS, _LEFT = 2.0, 0.3


class NearBoundary(NamedTuple):
    """Points on boundaries, with what curvature there needs to know.

    `gradient` is that of the point before the last step.
    """

    points: Tensor
    value: Tensor
    gradient: Tensor
    converged: Tensor


def step_to_boundary(
    margin: Margin, x: Tensor, z: Tensor, *, tol: float, batch_size: int | None
) -> NearBoundary:
    r"""Take Newton steps from `z` onto the boundary near `x`.

    Until the linearised boundary is within `tol` of the distance,
    \|F(z)\| / \|g\| <= tol \|z - x\|; then one step more, without a new gradient, to
    the foot of the perpendicular from where the steps began. What is left is of second
    order in `tol` and in the way along the boundary to the foot (of first order where
    a kink is crossed). Rows that do not get there go to :func:`find_boundary`. Where F
    comes that close to 0 without crossing it, that counts as a boundary. Cost: a
    forward and a backward pass for each Newton step, on trained networks some two of
    them for tol = 0.1, and a forward pass for the last.
    """
    near = _newton(margin, x, z, tol, batch_size)
    _step_once_more(margin, x, z, near, tol, batch_size)
    rows = (~near.converged).nonzero().squeeze(1)
    if len(rows):
        of_rows = take_rows(margin, rows)
        found = find_boundary(of_rows, z[rows], n_projections=0, batch_size=batch_size)
        near.points[rows], near.converged[rows] = found.points, found.converged
        near.value[rows], near.gradient[rows] = margin_value_and_gradient(
            of_rows, found.points, batch_size=batch_size
        )
    return near


def _step_once_more(
    margin: Margin,
    x: Tensor,
    z: Tensor,
    near: NearBoundary,
    tol: float,
    batch_size: int | None,
) -> None:
    """Take the last step, in place, where more than tol^2 of the distance is left."""
    slope = near.gradient.flatten(1).norm(dim=1)
    within = tol * (near.points - x).flatten(1).norm(dim=1)
    far = near.value.abs() > tol * within * slope
    rows = (near.converged & far).nonzero().squeeze(1)
    if not len(rows):
        return
    before, value, gradient = near.points[rows], near.value[rows], near.gradient[rows]
    square, within = slope[rows] ** 2, within[rows]
    newton = before - per_row(value / square, x) * gradient
    # The point of the linearised boundary that is nearest to z.
    along = (gradient * (before - z[rows])).flatten(1).sum(1)
    foot = z[rows] + per_row((along - value) / square, x) * gradient
    sideways = (foot - newton).flatten(1).norm(dim=1)
    points = torch.where(per_row(sideways <= _SIDEWAYS * within, x), foot, newton)
    at_points = margin_value(take_rows(margin, rows), points, batch_size=batch_size)
    # A step across a kink may lead away.
    left = at_points.abs()
    better = (left < value.abs()) | (left <= _LEFT * within * slope[rows])
    near.points[rows] = points.where(per_row(better, x), before)
    near.value[rows] = at_points.where(better, value)


def _newton(
    margin: Margin, x: Tensor, z: Tensor, tol: float, batch_size: int | None
) -> NearBoundary:
    """Return the last points whose gradients are known."""
    z = z.clone()
    value, gradient = margin_value_and_gradient(margin, z, batch_size=batch_size)
    converged = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    rows = torch.arange(len(z), device=z.device)
    for n_steps in range(_MAX_STEPS + 1):
        slope = gradient[rows].flatten(1).norm(dim=1)
        near = value[rows].abs() <= reach(x[rows], z[rows], tol) * slope
        converged[rows] = near & (slope > 0)
        # The one wait for the device in a step: how many rows go on.
        ahead = (~near & (slope > 0)).nonzero().squeeze(1)
        rows, slope = rows[ahead], slope[ahead]
        if not len(rows) or n_steps == _MAX_STEPS:
            break
        z[rows] -= per_row(value[rows] / slope**2, z) * gradient[rows]
        value[rows], gradient[rows] = margin_value_and_gradient(
            take_rows(margin, rows), z[rows], batch_size=batch_size
        )
    return NearBoundary(z, value, gradient, converged)
