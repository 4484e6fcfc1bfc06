"""Search for boundary points: towards the nearest, across it, then onto it."""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import check_bounds
from curvdetect._base.rows import per_row
from curvdetect.geometry._derivatives import margin_value, margin_value_and_gradient
from curvdetect.geometry._margins import Margin, take_rows

__all__ = ["Boundary", "find_boundary", "reach"]

#: A Newton step is lengthened by this part, so that it ends across the boundary.
_OVERSHOOT = 0.02
_MAX_ROOT_STEPS = 12
#: So many projections go all the way; further ones go less and less, because on a
#: piecewise-linear function full ones end up jumping to and fro across kinks.
_N_FULL = 2
#: The multiplier of a projection within bounds: up to 1,000 times that without, to
#: five digits.
_N_DOUBLINGS, _N_BISECTIONS = 10, 24


class Boundary(NamedTuple):
    """Boundary points found by :func:`find_boundary`.

    Attributes
    ----------
    points : Tensor of shape (n, *input_shape)
        z; where `converged` is False, where the search ended.
    distances : Tensor of shape (n,)
        L2 norm of z - x, in input units.
    converged : Tensor of shape (n,), bool
        Whether a boundary was reached: a change of sign was enclosed, or the
        linearised boundary is within the tolerance.
    """

    points: Tensor
    distances: Tensor
    converged: Tensor


def find_boundary(
    margin: Margin,
    x: Tensor,
    *,
    n_projections: int = 2,
    max_steps: int = 20,
    tol: float = 1e-4,
    bounds: tuple[float, float] | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = None,
) -> Boundary:
    r"""Find a point of the boundary near each point.

    Three phases, each only for the rows that need it:

    1. `n_projections` times, z becomes the foot of the perpendicular from x on the
       boundary linearised at z, x + ((g . (z - x) - F(z)) / \|g\|^2) g. Where this
       iteration (of Hasofer, Lind, Rackwitz and Fiessler) converges, it does so to
       a nearest boundary point. After t projections, from the third on, only
       1 / (1 + t/5) of the way is taken, and with `bounds` the foot is the nearest
       point of the box on the linearised boundary.
    2. Newton steps z - F(z) g / \|g\|^2, 2 % longer, as in DeepFool, until the margin
       changes sign or the linearised boundary is within `tol` of the distance, or
       within what rounding can tell.
    3. Where the sign changed, the Illinois method on the last step: regula falsi that
       halves the value of an end that stays, of order 1.44.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Where to start; F may have either sign there.
    n_projections : int, default=2
        More get closer to the nearest point: on two trained LeNets, two shorten the
        distance by 7 to 12 % against none, five by 15 to 19 %, twenty by 19 to 23 %.
    max_steps : int, default=20
        Newton steps at the most.
    tol : float, default=1e-4
        When to stop: \|F\| / \|g\| relative to the distance, or F relative to that at
        the ends of the last step.
    bounds : (float, float), optional
        Smallest and largest value of an input: the search then stays in that box.
    start : tuple of Tensor, optional
        F and its gradient at `x`, if they are known already.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Boundary
        Points, distances and a mask. Not finding a boundary (the gradient vanishes,
        or the sign never changes) is a value of the mask, not an error. Cost: a
        forward and a backward pass for each projection and each Newton step, and a
        few forward passes for the root.

    References
    ----------
    R. Rackwitz, B. Fiessler, "Structural reliability under combined random load
    sequences", Computers & Structures 9(5), 1978.
    S.-M. Moosavi-Dezfooli, A. Fawzi, P. Frossard, "DeepFool: a simple and accurate
    method to fool deep neural networks", CVPR 2016.

    Examples
    --------
    The unit circle, seen from inside.

    >>> import torch
    >>> from curvdetect.geometry import find_boundary
    >>> circle = lambda x: 1 - x.norm(dim=1)
    >>> find_boundary(circle, torch.tensor([[0.3, 0.4]])).distances
    tensor([0.5000])
    """
    if not isinstance(n_projections, Integral) or n_projections < 0:
        raise ValueError(
            f"n_projections must be an integer of at least 0; got {n_projections!r}"
        )
    check_bounds(bounds)
    x = x.detach()
    if start is None:
        start = margin_value_and_gradient(margin, x, batch_size=batch_size)
    z, start = _approach(margin, x, n_projections, bounds, start, batch_size)
    within = reach(x, z, tol)
    near, far, reached = _cross(margin, z, within, max_steps, bounds, start, batch_size)
    points = near.point
    rows = (near.value * far.value < 0).nonzero().squeeze(1)
    if len(rows):
        points[rows] = _root(
            take_rows(margin, rows), near.take(rows), far.take(rows), tol, batch_size
        )
    distances = (points - x).flatten(1).norm(dim=1)
    return Boundary(points, distances, reached)


def reach(x: Tensor, z: Tensor, tol: float) -> Tensor:
    """Return how far from z a boundary may be that counts as reached.

    A part of the distance from x, but no less than rounding allows: nearer than that,
    the sign may never change.
    """
    rounding = 4 * torch.finfo(x.dtype).eps * z.flatten(1).norm(dim=1)
    return torch.maximum(tol * (z - x).flatten(1).norm(dim=1), rounding)


class _End(NamedTuple):
    """One end of each of the segments that enclose the boundary."""

    point: Tensor
    value: Tensor

    def take(self, rows: Tensor) -> _End:
        return _End(self.point[rows], self.value[rows])

    def put(self, rows: Tensor, point: Tensor, value: Tensor) -> None:
        self.point[rows], self.value[rows] = point, value


def _approach(
    margin: Margin,
    x: Tensor,
    n_projections: int,
    bounds: tuple[float, float] | None,
    start: tuple[Tensor, Tensor],
    batch_size: int | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Project x on the linearised boundary again and again; return z, F(z), g(z)."""
    z = x
    for n_before in range(n_projections):
        share = 1.0 if n_before < _N_FULL else 1 / (1 + n_before / 5)
        value, gradient = start
        along = (gradient * (z - x)).flatten(1).sum(1)
        foot = (
            x + per_row(_multiplier(x, gradient, along - value, bounds), x) * gradient
        )
        if bounds is not None:
            foot = foot.clamp(*bounds)
        finite = per_row(foot.flatten(1).isfinite().all(1), x)
        z = torch.lerp(z, foot, share).where(finite, z)
        start = margin_value_and_gradient(margin, z, batch_size=batch_size)
    return z, start


def _multiplier(
    x: Tensor, gradient: Tensor, rest: Tensor, bounds: tuple[float, float] | None
) -> Tensor:
    """Return the m for which clamp(x + m g) is nearest to x on {g . (z - x) = rest}.

    Without bounds, rest / |g|^2. Within them what m reaches is monotone, so m is
    doubled until it suffices and then bisected; no network is called.
    """
    m = rest / _square(gradient)
    if bounds is None:
        return m

    def falls_short(m: Tensor) -> Tensor:
        way = (x + per_row(m, x) * gradient).clamp(*bounds) - x
        return (gradient * way).flatten(1).sum(1) * rest.sign() < rest.abs()

    for _ in range(_N_DOUBLINGS):
        m = torch.where(falls_short(m), 2 * m, m)
    low, high = torch.zeros_like(m), m
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        short = falls_short(middle)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return high


def _cross(
    margin: Margin,
    z: Tensor,
    within: Tensor,
    max_steps: int,
    bounds: tuple[float, float] | None,
    start: tuple[Tensor, Tensor],
    batch_size: int | None,
) -> tuple[_End, _End, Tensor]:
    """Take Newton steps until the sign changes, or the boundary is that near.

    Returns the two ends of each row's last step, the same point twice where none was
    needed, and a mask of the rows that came to an end.
    """
    value, gradient = start
    near, far = _End(z.clone(), value.clone()), _End(z.clone(), value.clone())
    reached = value.abs() <= within * _square(gradient).sqrt()
    rows = (~reached).nonzero().squeeze(1)
    gradient = gradient[rows]
    for _ in range(max_steps):
        point = _newton_step(*near.take(rows), gradient, bounds)
        finite = point.flatten(1).isfinite().all(1)  # not where the gradient vanishes
        rows, point = rows[finite], point[finite]
        if not len(rows):
            break
        value, gradient = margin_value_and_gradient(
            take_rows(margin, rows), point, batch_size=batch_size
        )
        across = value * near.value[rows] <= 0
        close = value.abs() <= within[rows] * _square(gradient).sqrt()
        far.put(rows, point, value)
        near.put(rows[close | ~across], point[close | ~across], value[close | ~across])
        reached[rows[close | across]] = True
        ahead = ~(close | across)
        rows, gradient = rows[ahead], gradient[ahead]
    return near, far, reached


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
    length = (1 + _OVERSHOOT) * value / _square(gradient)
    point = point - per_row(length, point) * gradient
    return point if bounds is None else point.clamp(*bounds)


def _root(
    margin: Margin, near: _End, far: _End, tol: float, batch_size: int | None
) -> Tensor:
    """Return the root on each segment near + t (far - near), 0 <= t <= 1."""
    a, b = torch.zeros_like(near.value), torch.ones_like(far.value)
    at_a, at_b = near.value.clone(), far.value.clone()
    best = torch.where(at_a.abs() < at_b.abs(), a, b)
    residual = torch.minimum(at_a.abs(), at_b.abs())
    target = tol * torch.maximum(at_a.abs(), at_b.abs())
    last_moved = torch.zeros_like(a)  # 1 for b, -1 for a
    for _ in range(_MAX_ROOT_STEPS):
        rows = (residual > target).nonzero().squeeze(1)
        if not len(rows):
            break
        t = torch.lerp(a[rows], b[rows], at_a[rows] / (at_a[rows] - at_b[rows]))
        value = margin_value(
            take_rows(margin, rows),
            torch.lerp(near.point[rows], far.point[rows], per_row(t, near.point)),
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
        better = value.abs() < residual[rows]
        best[rows] = torch.where(better, t, best[rows])
        residual[rows] = torch.where(better, value.abs(), residual[rows])
    return torch.lerp(near.point, far.point, per_row(best, near.point))


def _square(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).square().sum(1)
