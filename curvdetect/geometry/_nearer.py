"""A wary search, for margins that are flat first and then fall steeply."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect._base.rows import per_row
from curvdetect.geometry._crossing import Segment, root
from curvdetect.geometry._derivatives import margin_value, margin_value_and_gradient
from curvdetect.geometry._margins import Margin, take_rows
from curvdetect.geometry._points import BoundaryPoints
from curvdetect.geometry._projection import foot

__all__ = ["doubtful", "search_nearer"]

#: The distance found, in distances to first order, and the slope there, in mean slopes
#: of the way. Of some 10,000 boundaries of two LeNets and a ResNet-20 none was outside.
_DISTANCES, _SLOPES = (0.4, 4.0), (0.05, 4.0)
#: Where on the way to a far boundary F is looked at, and how far from there on it may
#: have fallen, in what a straight line falls from the first of these places.
_PLACES, _EVEN = (0.05, 0.3, 0.7), (0.5, 2.5)
#: A walk tries so many lengths in the direction of each gradient, each half the last.
_N_LENGTHS, _N_GRADIENTS = 7, 12
#: It takes the shortest that brings this part of the largest decrease: what falls only
#: further out belongs to another boundary.
_PART_OF_DECREASE = 0.5
#: Where no length brings a decrease, they all become longer by this factor.
_FURTHER = 4.0
_N_SAMPLES = 8
#: How far beside a point without a gradient a walk begins, in lengths of the point,
#: and how often that is doubled.
_BESIDE = (0.01, 10)
_N_PROJECTIONS = 5
#: What is nearer by less is not worth another point.
_NEARER = 0.99


def doubtful(
    margin: Margin,
    x: Tensor,
    found: BoundaryPoints,
    first_order: Tensor,
    *,
    value: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Say where a nearer boundary may have been stepped over.

    That is where none was found; where distance or slope are not at all those that the
    first order let expect; and where the point found is further from x than x is long,
    and F does not fall evenly on the way there.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Where the search began.
    found : BoundaryPoints
        What Newton steps found.
    first_order : Tensor of shape (n,)
        Distances to the boundaries linearised at `x`.
    value : Tensor of shape (n,), optional
        F(x), where it is known.
    batch_size : int, optional
        As in :func:`find_boundary`.

    Returns
    -------
    Tensor of shape (n,), bool
        Rows for :func:`search_nearer`. Cost: three forward passes for far ones.
    """
    distance = found.distances
    usual = _within(distance, first_order, _DISTANCES)
    if value is not None:
        fall = found.gradient.flatten(1).norm(dim=1) * distance
        usual &= _within(fall, value.abs(), _SLOPES)
    which = ~(found.found & (usual | (distance == 0)))
    far = ~which & (distance > x.flatten(1).norm(dim=1)) & (distance > 0)
    rows = far.nonzero().squeeze(1)
    if not len(rows):
        return which
    values = [
        margin_value(
            take_rows(margin, rows),
            torch.lerp(x[rows], found.points[rows], share),
            batch_size=batch_size,
        )
        for share in _PLACES
    ]
    first = values[0].abs() / (1 - _PLACES[0])
    even = values[0] * values[-1] > 0
    for share, at_share in zip(_PLACES[1:], values[1:], strict=True):
        fallen = values[0].abs() - at_share * values[0].sign()
        even &= _within(fallen, first * (share - _PLACES[0]), _EVEN)
    return which.index_put((rows,), ~even)


def _within(value: Tensor, unit: Tensor, limits: tuple[float, float]) -> Tensor:
    return (limits[0] * unit <= value) & (value <= limits[1] * unit)


def search_nearer(
    margin: Margin,
    x: Tensor,
    known: BoundaryPoints,
    which: Tensor,
    *,
    tol: float,
    n_projections: int = _N_PROJECTIONS,
    bounds: tuple[float, float] | None = None,
    evaluated: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = None,
) -> BoundaryPoints:
    r"""Look for boundaries nearer than those known, along gradients of limited length.

    A gradient says where to go, but on a plateau not how far: from x, several lengths
    are tried along it, none beyond the boundary that is known, nor longer than x; then
    the same from the best of them. What crosses is drawn in to the first change of
    sign on the segment from x, and then projected as in :func:`find_boundary`.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    known : BoundaryPoints
        What was found before, n rows.
    which : Tensor of shape (n,), bool
        In which rows; the others stay.
    tol, n_projections, bounds, batch_size
        As in :func:`find_boundary`.
    evaluated : tuple of Tensor, optional
        F and its gradient at `x`, if they are known already.

    Returns
    -------
    BoundaryPoints
        The nearer ones; what was known where there are none. Cost: at most some 60
        forward and 20 backward passes a row.
    """
    rows = which.nonzero().squeeze(1)
    if not len(rows):
        return known
    if evaluated is None:
        evaluated = margin_value_and_gradient(
            take_rows(margin, rows), x[rows], batch_size=batch_size
        )
    else:
        evaluated = evaluated[0][rows], evaluated[1][rows]
    of_rows, at_x = take_rows(margin, rows), evaluated[0]
    begin, evaluated = _off_plateaus(of_rows, x[rows], evaluated, bounds, batch_size)
    radius = _radius(x[rows], known.take(rows), evaluated)
    z, at_z = _walk(of_rows, begin, at_x.sign(), radius, bounds, evaluated, batch_size)
    across = at_z * at_x <= 0
    rows, z, values = rows[across], z[across], (at_x[across], at_z[across])
    if not len(rows):
        return known
    of_rows, x, before = take_rows(margin, rows), x[rows], known.take(rows)
    z, _ = _first_crossing(of_rows, x, z, values, tol, batch_size)
    found = _drawn_in(of_rows, x, values[0], z, n_projections, tol, bounds, batch_size)
    limit = torch.where(before.found, _NEARER * before.distances, torch.inf)
    nearer = found.found & (found.distances < limit)
    return known.replaced(rows[nearer], found.take(nearer))


def _off_plateaus(
    margin: Margin,
    x: Tensor,
    evaluated: tuple[Tensor, Tensor],
    bounds: tuple[float, float] | None,
    batch_size: int | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return where walks begin, and F and its gradient there: at x, or beside it.

    In the middle of a region, on a saddle, or where the network saturates there is no
    way down; beside it there is. All rows look in the same direction: one must not
    depend on the others.
    """
    (value, gradient), begin = evaluated, x.clone()
    value, gradient = value.clone(), gradient.clone()
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    way = (way / way.norm()).to(x)
    length = _BESIDE[0] * _length(x)
    for power in range(_BESIDE[1]):
        rows = (gradient.flatten(1).abs().amax(1) == 0).nonzero().squeeze(1)
        if not len(rows):
            break
        begin[rows] = x[rows] + 2**power * per_row(length[rows], x) * way
        if bounds is not None:
            begin[rows] = begin[rows].clamp(*bounds)
        value[rows], gradient[rows] = margin_value_and_gradient(
            take_rows(margin, rows), begin[rows], batch_size=batch_size
        )
    return begin, (value, gradient)


def _radius(
    x: Tensor, known: BoundaryPoints, evaluated: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the longest step that is tried."""
    first_order = evaluated[0].abs() / evaluated[1].flatten(1).norm(dim=1)
    furthest = torch.where(known.found, known.distances, first_order)
    return torch.minimum(_length(x), furthest.nan_to_num(0, posinf=torch.inf))


def _length(x: Tensor) -> Tensor:
    """Return the lengths of points; that of a point of ones for the point 0."""
    flat = x.flatten(1)
    length = flat.norm(dim=1)
    return length.where(length > 0, flat.shape[1] ** 0.5)


def _walk(
    margin: Margin,
    x: Tensor,
    sign: Tensor,
    radius: Tensor,
    bounds: tuple[float, float] | None,
    evaluated: tuple[Tensor, Tensor],
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Follow gradients until F has another sign; return where that is, and F there."""
    z, at_z, gradient = x.clone(), evaluated[0].clone(), evaluated[1].clone()
    radius = radius.clone()
    halves = 0.5 ** torch.arange(_N_LENGTHS, device=x.device, dtype=x.dtype)
    rows = (at_z * sign > 0).nonzero().squeeze(1)
    for n_before in range(_N_GRADIENTS):
        unit = _unit(gradient[rows])
        ahead = unit.flatten(1).isfinite().all(1) & (radius[rows] > 0)
        rows, unit = rows[ahead], unit[ahead]
        if not len(rows):
            break
        way = per_row(sign[rows] * radius[rows], x) * unit
        probes = (
            z[rows, None] - halves.reshape(1, -1, *[1] * (x.ndim - 1)) * way[:, None]
        )
        if bounds is not None:
            probes = probes.clamp(*bounds)
        of_probes = take_rows(margin, rows.repeat_interleave(_N_LENGTHS))
        values = margin_value(of_probes, probes.flatten(0, 1), batch_size=batch_size)
        values = values.reshape(-1, _N_LENGTHS) * sign[rows, None]
        chosen = _shortest_that_pays(values, at_z[rows].abs())
        of_row = torch.arange(len(rows), device=x.device)
        stuck = ~(values < at_z[rows].abs()[:, None]).any(1)
        radius[rows] = torch.where(stuck, _FURTHER, 1) * radius[rows]
        z[rows] = probes[of_row, chosen]
        at_z[rows] = values[of_row, chosen] * sign[rows]
        rows = rows[values[of_row, chosen] > 0]
        if not len(rows) or n_before + 1 == _N_GRADIENTS:
            break
        _, gradient[rows] = margin_value_and_gradient(
            take_rows(margin, rows), z[rows], batch_size=batch_size
        )
    return z, at_z


def _unit(gradient: Tensor) -> Tensor:
    """Return directions; NaN without one. Squares of tiny gradients would vanish."""
    scaled = gradient / per_row(gradient.flatten(1).abs().amax(1), gradient)
    return scaled / per_row(scaled.flatten(1).norm(dim=1), scaled)


def _shortest_that_pays(values: Tensor, before: Tensor) -> Tensor:
    """Choose a length: the shortest that crosses, or the one that :func:`_walk` says.

    `values` are |F| by length, the longest first, negative across.
    """
    decrease = (before[:, None] - values).nan_to_num(-torch.inf)
    pays = decrease >= _PART_OF_DECREASE * decrease.amax(1, keepdim=True).clamp(min=0)
    pays = torch.where((values <= 0).any(1, keepdim=True), values <= 0, pays)
    # The last that is true; where none falls at all, the shortest.
    from_the_end = pays.flip(1).to(torch.int8).argmax(1)
    return values.shape[1] - 1 - from_the_end


def _first_crossing(
    margin: Margin,
    x: Tensor,
    z: Tensor,
    values: tuple[Tensor, Tensor],
    tol: float,
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Return where the sign first changes on the way from x to z, and if it does."""
    at_x, at_z = values
    shares = torch.linspace(0, 1, _N_SAMPLES + 1, device=x.device, dtype=x.dtype)
    samples = torch.stack([torch.lerp(x, z, share) for share in shares[1:-1]], dim=1)
    of_row = torch.arange(len(x), device=x.device)
    of_samples = take_rows(margin, of_row.repeat_interleave(_N_SAMPLES - 1))
    between = margin_value(of_samples, samples.flatten(0, 1), batch_size=batch_size)
    along = [at_x[:, None], between.reshape(len(x), -1), at_z[:, None]]
    value = torch.cat(along, dim=1)
    across = value[:, 1:] * at_x[:, None] <= 0
    rows = across.any(1).nonzero().squeeze(1)
    first = across[rows].to(torch.int8).argmax(1)
    near, far = (
        torch.lerp(x[rows], z[rows], per_row(shares[end], x))
        for end in (first, first + 1)
    )
    ends = Segment(near, value[rows, first], far, value[rows, first + 1])
    points = z.index_put(
        (rows,), root(take_rows(margin, rows), ends, tol, batch_size)[0]
    )
    return points, across.any(1)


def _drawn_in(
    margin: Margin,
    x: Tensor,
    at_x: Tensor,
    z: Tensor,
    n_projections: int,
    tol: float,
    bounds: tuple[float, float] | None,
    batch_size: int | None,
) -> BoundaryPoints:
    """Move points of the boundary towards x, along it.

    x is projected on the boundary linearised at z, as in :func:`find_boundary`, but
    only the direction of that is taken: on it, no further than z, the sign changes or
    it does not, however flat the margin is beside the boundary.
    """
    value, gradient = margin_value_and_gradient(margin, z, batch_size=batch_size)
    distances = (z - x).flatten(1).norm(dim=1)
    best = BoundaryPoints(z, distances, distances.isfinite(), value, gradient)
    rows = torch.arange(len(x), device=x.device)
    for _ in range(max(n_projections, _N_PROJECTIONS)):
        of_rows, near = take_rows(margin, rows), best.take(rows)
        way = foot(x[rows], near.points, (near.value, near.gradient), bounds) - x[rows]
        scale = near.distances / way.flatten(1).norm(dim=1)
        end = x[rows] + per_row(scale.nan_to_num(0, posinf=0), x) * way
        if bounds is not None:
            end = end.clamp(*bounds)
        at_ends = at_x[rows], margin_value(of_rows, end, batch_size=batch_size)
        z, crosses = _first_crossing(of_rows, x[rows], end, at_ends, tol, batch_size)
        distances = (z - x[rows]).flatten(1).norm(dim=1)
        nearer = crosses & (distances < (1 - tol) * near.distances)
        rows, z, distances = rows[nearer], z[nearer], distances[nearer]
        if not len(rows):
            break
        value, gradient = margin_value_and_gradient(
            take_rows(margin, rows), z, batch_size=batch_size
        )
        found = BoundaryPoints(z, distances, distances.isfinite(), value, gradient)
        best = best.replaced(rows, found)
    return best
