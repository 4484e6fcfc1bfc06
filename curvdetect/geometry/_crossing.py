"""The way across a boundary, and then onto it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.rows import dot, per_row
from curvdetect.geometry._derivatives import margin_value, margin_value_and_gradient
from curvdetect.geometry._margins import Margin, take_rows
from curvdetect.geometry._points import BoundaryPoints

__all__ = ["Segment", "onto_boundary", "reach", "root"]

#: A Newton step is lengthened by this part, so that it ends across the boundary.
_OVERSHOOT = 0.02
#: A dozen are enough but where the margin is a cliff between two plateaus.
_MAX_ROOT_STEPS = 50


class Segment(NamedTuple):
    """The two ends of a step of each row, and F there."""

    near: Tensor
    at_near: Tensor
    far: Tensor
    at_far: Tensor

    def take(self, rows: Tensor) -> Segment:
        return Segment(*(part[rows] for part in self))


def onto_boundary(
    margin: Margin,
    x: Tensor,
    z: Tensor,
    *,
    max_steps: int,
    tol: float,
    bounds: tuple[float, float] | None,
    evaluated: tuple[Tensor, Tensor],
    batch_size: int | None,
) -> BoundaryPoints:
    """Go from z across the boundary, then onto it; distances are taken from x.

    `evaluated` is F and its gradient at z. These are the last two phases of
    :func:`find_boundary`.
    """
    within = reach(x, z, tol)
    ends, gradient, reached = _cross(
        margin, z, within, max_steps, bounds, evaluated, batch_size
    )
    points, value = ends.near, ends.at_near
    rows = (ends.at_near * ends.at_far < 0).nonzero().squeeze(1)
    if len(rows):
        onto, at_onto = root(take_rows(margin, rows), ends.take(rows), tol, batch_size)
        points = points.index_put((rows,), onto)
        value = value.index_put((rows,), at_onto)
    distances = (points - x).flatten(1).norm(dim=1)
    return BoundaryPoints(points, distances, reached, value, gradient)


def reach(x: Tensor, z: Tensor, tol: float) -> Tensor:
    """Return how far from z a boundary may be that counts as reached.

    A part of the distance from x, but no less than rounding allows: nearer than that,
    the sign may never change.
    """
    rounding = 4 * torch.finfo(x.dtype).eps * z.flatten(1).norm(dim=1)
    return torch.maximum(tol * (z - x).flatten(1).norm(dim=1), rounding)


def _cross(
    margin: Margin,
    z: Tensor,
    within: Tensor,
    max_steps: int,
    bounds: tuple[float, float] | None,
    evaluated: tuple[Tensor, Tensor],
    batch_size: int | None,
) -> tuple[Segment, Tensor, Tensor]:
    """Take Newton steps until the sign changes, or the boundary is that near.

    Returns the last step of each row, the same point twice where none was needed, the
    gradient at the last point, and which rows came to an end.
    """
    at_near, gradient = evaluated[0].clone(), evaluated[1].clone()
    near, far, at_far = z.clone(), z.clone(), at_near.clone()
    reached = at_near.abs() <= within * dot(gradient, gradient).sqrt()
    rows = (~reached).nonzero().squeeze(1)
    for _ in range(max_steps):
        point = _newton_step(near[rows], at_near[rows], gradient[rows], bounds)
        finite = point.flatten(1).isfinite().all(1)  # not where the gradient vanishes
        rows, point = rows[finite], point[finite]
        if not len(rows):
            break
        value, slope = margin_value_and_gradient(
            take_rows(margin, rows), point, batch_size=batch_size
        )
        across = value * at_near[rows] <= 0
        close = value.abs() <= within[rows] * dot(slope, slope).sqrt()
        far[rows], at_far[rows], gradient[rows] = point, value, slope
        nearer = close | ~across
        near[rows[nearer]], at_near[rows[nearer]] = point[nearer], value[nearer]
        reached[rows[close | across]] = True
        rows = rows[~(close | across)]
    return Segment(near, at_near, far, at_far), gradient, reached


def _newton_step(
    point: Tensor, value: Tensor, gradient: Tensor, bounds: tuple[float, float] | None
) -> Tensor:
    """Return the points one lengthened Newton step further."""
    if bounds is not None:
        # A value at its bound cannot move outwards: leave it out of the step.
        downhill = -per_row(value.sign(), point) * gradient
        at_low = (point <= bounds[0]) & (downhill < 0)
        at_high = (point >= bounds[1]) & (downhill > 0)
        gradient = gradient.masked_fill(at_low | at_high, 0)
    length = (1 + _OVERSHOOT) * value / dot(gradient, gradient)
    point = point - per_row(length, point) * gradient
    return point if bounds is None else point.clamp(*bounds)


def root(
    margin: Margin, ends: Segment, tol: float, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the root on each segment near + t (far - near), and F there."""
    near, far = ends.near, ends.far
    a, b = torch.zeros_like(ends.at_near), torch.ones_like(ends.at_far)
    at_a, at_b = ends.at_near.clone(), ends.at_far.clone()
    a_is_best = at_a.abs() < at_b.abs()
    best, at_best = torch.where(a_is_best, a, b), torch.where(a_is_best, at_a, at_b)
    target = tol * torch.maximum(at_a.abs(), at_b.abs())
    last_moved = torch.zeros_like(a)  # 1 for b, -1 for a
    for _ in range(_MAX_ROOT_STEPS):
        rows = (at_best.abs() > target).nonzero().squeeze(1)
        if not len(rows):
            break
        t = torch.lerp(a[rows], b[rows], at_a[rows] / (at_a[rows] - at_b[rows]))
        value = margin_value(
            take_rows(margin, rows),
            torch.lerp(near[rows], far[rows], per_row(t, near)),
            batch_size=batch_size,
        )
        moves_b = value * at_a[rows] <= 0
        moved = torch.where(moves_b, 1.0, -1.0).to(a)
        # An end that stays twice in a row counts half.
        shrink = torch.where(moved == last_moved[rows], 0.5, 1.0).to(a)
        last_moved[rows] = moved
        at_a[rows] = torch.where(moves_b, at_a[rows] * shrink, value)
        at_b[rows] = torch.where(moves_b, value, at_b[rows] * shrink)
        a[rows] = torch.where(moves_b, a[rows], t)
        b[rows] = torch.where(moves_b, t, b[rows])
        better = value.abs() < at_best[rows].abs()
        best[rows] = torch.where(better, t, best[rows])
        at_best[rows] = torch.where(better, value, at_best[rows])
    return torch.lerp(near, far, per_row(best, near)), at_best
