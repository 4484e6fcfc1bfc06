"""Whether the regions of a classifier are connected, and how convex they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import check_count
from curvdetect._base.rows import batches, dot, per_row
from curvdetect.geometry._boundary import find_boundary
from curvdetect.geometry._derivatives import margin_gradient, margin_value
from curvdetect.geometry._margins import RegionMargin

__all__ = ["RegionPath", "convex_combinations", "find_path_in_region"]

#: How deep into the region an anchor goes, in lengths of the segment that is halved:
#: the first of these that ends inside. A chord of two points on the rim of a hole cuts
#: into the hole, by less the shorter it is; anchors must be deeper than that.
_DEPTHS = (0.1, 0.05, 0.02, 0.005, 0.2)
#: Around corners, which there is no need to keep close to.
_SIDEWAYS_DEPTHS = (0.2, *_DEPTHS[:-1])
#: How far off a chord the search for a way around begins, in lengths of the chord.
_ASIDE = 0.01


class RegionPath(NamedTuple):
    """Paths that stay in one region; see :func:`find_path_in_region`.

    Attributes
    ----------
    points : Tensor of shape (n, m, *input_shape)
        The vertices of each path, from its first end to its last; m is the same for
        all, so that simple paths have vertices that they do not need.
    found : Tensor of shape (n,), bool
        Whether every point that was tried on the path is in the region.
    straight : Tensor of shape (n,), bool
        Whether the straight segment is a path.
    relative_length : Tensor of shape (n,)
        Length of the path over the distance between its ends; NaN where none was
        found.
    """

    points: Tensor
    found: Tensor
    straight: Tensor
    relative_length: Tensor


@torch.no_grad()
def find_path_in_region(
    logits: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    *,
    n_levels: int = 5,
    n_samples: int = 32,
    batch_size: int | None = None,
) -> RegionPath:
    """Look for a path between two points that stays in the region of their class.

    The straight segment first. Where it leaves the region, its midpoint is pushed back
    into it by a boundary search, and the two halves are treated alike, again and again
    (the algorithm of [1]_). All segments of the final path have then been sampled. If
    that finds none, midpoints are pushed at right angles to their segments instead.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    a, b : Tensor of shape (n, *input_shape)
        The ends of each path; both of one predicted class.
    n_levels : int, default=5
        How often segments are halved at the most: paths have up to 2^n_levels segments.
    n_samples : int, default=32
        Points tried inside each segment, evenly spaced; after l levels there are
        2^l n_samples between the ends. What is thinner than their distance is missed.
    batch_size : int, optional
        Rows given to `logits` at a time; all at once by default.

    Returns
    -------
    RegionPath
        Vertices, two masks and lengths. Not finding a path is a value of the mask: the
        region may have two components, or the path be too winding. Cost: n_samples
        forward passes a segment, and a boundary search for every anchor.

    Raises
    ------
    ValueError
        If the ends of a path are in different regions, or a parameter is not allowed.

    References
    ----------
    .. [1] A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, S. Soatto, "Empirical study
       of the topology and geometry of deep networks", CVPR 2018, section 3.

    Examples
    --------
    Around the hole of a ring.

    >>> import torch
    >>> from curvdetect.geometry import find_path_in_region
    >>> ring = lambda x: 1 - (x.norm(dim=1) - 2) ** 2
    >>> logits = lambda x: torch.stack([ring(x), 0 * x[:, 0]], dim=1)
    >>> a, b = torch.tensor([[2.0, 0.1]]), torch.tensor([[-2.0, 0.1]])
    >>> path = find_path_in_region(logits, a, b)
    >>> path.found, path.straight
    (tensor([True]), tensor([False]))
    """
    check_count("n_levels", n_levels)
    check_count("n_samples", n_samples)
    n = len(a)
    ends = torch.cat([a, b])
    labels = margin_value(logits, ends, batch_size=batch_size).argmax(1)
    label, other = labels[:n], labels[n:]
    if not torch.equal(label, other):
        first = int((label != other).nonzero()[0])
        raise ValueError(
            "a and b must be predicted as the same class, row by row; got classes "
            f"{int(label[first])} and {int(other[first])} in row {first}"
        )
    path = _woven(logits, a, b, label, n_levels, n_samples, batch_size)
    # Where both ends and a hole lie on one line, the nearest boundary lies on it too,
    # at every level: the hole must be passed on one side.
    rows = (~path.found).nonzero().squeeze(1)
    if not len(rows):
        return path
    around = _woven(
        logits,
        a[rows],
        b[rows],
        label[rows],
        n_levels,
        n_samples,
        batch_size,
        sideways=True,
    )
    return _joined(path, rows[around.found], around, around.found)


def _woven(
    logits: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    label: Tensor,
    n_levels: int,
    n_samples: int,
    batch_size: int | None,
    *,
    sideways: bool = False,
) -> RegionPath:
    """Halve what leaves the region, and push the midpoints back into it."""
    points = torch.stack([a, b], dim=1)
    inside = _segments_inside(logits, points, label, n_samples, batch_size)
    straight = inside.all(1)
    for _ in range(n_levels):
        if bool(inside.all()):
            break
        middles = (points[:, :-1] + points[:, 1:]) / 2
        row, segment = (~inside).nonzero(as_tuple=True)
        chords = points[row, segment + 1] - points[row, segment]
        region, middle = RegionMargin(logits, label[row]), middles[row, segment]
        middles[row, segment] = _pushed_into_region(
            _Across(region, middle, chords) if sideways else region,
            middle,
            middle + _aside(chords) if sideways else middle,
            chords.flatten(1).norm(dim=1),
            _SIDEWAYS_DEPTHS if sideways else _DEPTHS,
            batch_size,
        )
        woven = torch.stack([points[:, :-1], middles], dim=2).flatten(1, 2)
        points = torch.cat([woven, points[:, -1:]], dim=1)
        # The halves of a segment that is inside are.
        known = inside.repeat_interleave(2, dim=1)
        inside = _segments_inside(
            logits, points, label, n_samples, batch_size, known=known
        )
    found = inside.all(1)
    length = (points[:, 1:] - points[:, :-1]).flatten(2).norm(dim=2).sum(1)
    distance = (b - a).flatten(1).norm(dim=1)
    relative = (length / distance).where(distance > 0, 1)
    return RegionPath(points, found, straight, relative.where(found, torch.nan))


def _joined(
    path: RegionPath, rows: Tensor, other: RegionPath, which: Tensor
) -> RegionPath:
    """Put some paths in the place of others: `which` of `other`, to `rows`."""
    m = max(path.points.shape[1], other.points.shape[1])
    points = _with_vertices(path.points, m).index_put(
        (rows,), _with_vertices(other.points, m)[which]
    )
    return RegionPath(
        points,
        path.found.index_put((rows,), other.found[which]),
        path.straight,
        path.relative_length.index_put((rows,), other.relative_length[which]),
    )


def _with_vertices(points: Tensor, m: int) -> Tensor:
    """Halve segments until there are m vertices; the paths stay what they are."""
    while points.shape[1] < m:
        middles = (points[:, :-1] + points[:, 1:]) / 2
        woven = torch.stack([points[:, :-1], middles], dim=2).flatten(1, 2)
        points = torch.cat([woven, points[:, -1:]], dim=1)
    return points


def _aside(chords: Tensor) -> Tensor:
    """Return a short way off each chord, at right angles to it.

    0 where there is none, on a line. The direction is drawn once and for all, so that
    no row depends on others.
    """
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(chords.shape[1:], generator=generator, dtype=torch.float64)
    square = dot(chords, chords)
    way = way.to(chords).expand_as(chords)
    way = way - per_row(dot(way, chords) / square, chords) * chords
    length = way.flatten(1).norm(dim=1)
    return (per_row(_ASIDE * square.sqrt() / length, chords) * way).nan_to_num(0)


class _Across:
    """The margin of a region in the plane at right angles to each chord."""

    def __init__(self, margin: RegionMargin, middle: Tensor, chords: Tensor) -> None:
        self.margin, self.middle, self.chords = margin, middle, chords

    def __call__(self, x: Tensor) -> Tensor:
        along = dot(x - self.middle, self.chords) / dot(self.chords, self.chords)
        return self.margin(x - per_row(along, x) * self.chords)

    def take(self, rows: Tensor) -> _Across:
        return _Across(self.margin.take(rows), self.middle[rows], self.chords[rows])


def _segments_inside(
    logits: Callable[[Tensor], Tensor],
    points: Tensor,
    label: Tensor,
    n_samples: int,
    batch_size: int | None,
    known: Tensor | None = None,
) -> Tensor:
    """Return whether the segments between successive points are inside, (n, m - 1).

    Those known to be are not looked at. Samples include the end of each segment.
    """
    n, m = points.shape[0], points.shape[1] - 1
    inside = points.new_ones(n, m, dtype=torch.bool)
    unknown = inside if known is None else ~known
    row, segment = unknown.nonzero(as_tuple=True)
    weights = torch.linspace(
        0, 1, n_samples + 2, device=points.device, dtype=points.dtype
    )
    for run in batches(len(row) * (n_samples + 1), batch_size, points.device):
        r, s = row[run // (n_samples + 1)], segment[run // (n_samples + 1)]
        weight = weights[1 + run % (n_samples + 1)]
        first, second = points[r, s], points[r, s + 1]
        sample = torch.lerp(first, second, per_row(weight, first))
        f = logits(sample)
        outside = (f.argmax(1) != label[r]) | ~f.isfinite().all(1)
        inside[r[outside], s[outside]] = False
    return inside


def _pushed_into_region(
    margin: RegionMargin | _Across,
    p: Tensor,
    begin: Tensor,
    lengths: Tensor,
    depths: tuple[float, ...],
    batch_size: int | None,
) -> Tensor:
    """Move points that are outside into the region; those inside stay.

    The search for its boundary begins at `begin`.
    """
    result = p.clone()
    value = margin_value(margin, p, batch_size=batch_size)
    rows = (value <= 0).nonzero().squeeze(1)
    boundary = find_boundary(margin.take(rows), begin[rows], batch_size=batch_size)
    rows, z = rows[boundary.found], boundary.points[boundary.found]
    inwards = margin_gradient(margin.take(rows), z, batch_size=batch_size)
    scale = lengths[rows] / inwards.flatten(1).norm(dim=1)
    inwards = per_row(scale, p) * inwards
    for depth in depths:
        result[rows] = z + depth * inwards
        value = margin_value(margin.take(rows), result[rows], batch_size=batch_size)
        outside = ~(value > 0)
        rows, z, inwards = rows[outside], z[outside], inwards[outside]
    return result


@torch.no_grad()
def convex_combinations(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    k: int,
    n_draws: int = 1000,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Try whether random convex combinations of points of one region stay in it.

    For a convex region all do.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points, of any classes. A draw takes a random point and k - 1 others of its
        predicted class; classes of fewer than k points take no part.
    k : int
        How many points are combined, with weights uniform on the simplex.
    n_draws : int, default=1000
        How often.
    generator : torch.Generator, optional
        Source of randomness, on the CPU.
    batch_size : int, optional
        Rows given to `logits` at a time; by default all points, and 1,000 draws.

    Returns
    -------
    Tensor of shape (n_draws,), bool
        Whether the combination is in the region. Its mean is the probability;
        :func:`curvdetect.study.metrics.proportion` gives it with an interval. Cost:
        n_draws forward passes, and one a point.

    Raises
    ------
    ValueError
        If a parameter is not allowed, or no class has k points.

    References
    ----------
    A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, S. Soatto, "Empirical study of the
    topology and geometry of deep networks", CVPR 2018, section 3.

    Examples
    --------
    A disc is convex.

    >>> import torch
    >>> from curvdetect.geometry import convex_combinations
    >>> logits = lambda x: torch.stack([1 - x.norm(dim=1), 0 * x[:, 0]], dim=1)
    >>> x = torch.tensor([[0.9, 0.0], [0.0, 0.9], [-0.9, 0.0]])
    >>> bool(convex_combinations(logits, x, k=3).all())
    True
    """
    check_count("k", k)
    check_count("n_draws", n_draws)
    label = margin_value(logits, x, batch_size=batch_size).argmax(1).cpu()
    large = torch.bincount(label)[label] >= k
    if not bool(large.any()):
        raise ValueError(
            f"k must be at most the number of points of a class; got {k}, and at most "
            f"{int(torch.bincount(label).max()) if len(label) else 0} of one class"
        )
    candidates = large.nonzero().squeeze(1)
    first = candidates[torch.randint(len(candidates), (n_draws,), generator=generator)]
    weights = -torch.rand(n_draws, k, generator=generator, dtype=torch.float64).log()
    weights = (weights / weights.sum(1, keepdim=True)).to(x)
    stays = []
    for draws in batches(n_draws, batch_size or 1000, torch.device("cpu")):
        keys = torch.rand(len(draws), len(x), generator=generator)
        keys[label[first[draws], None] != label] = -1  # of another class
        keys.scatter_(1, first[draws, None], 2)  # the first one for sure
        chosen = keys.topk(k, dim=1).indices.to(x.device)
        points = torch.einsum("nk,nk...->n...", weights[draws.to(x.device)], x[chosen])
        stays.append(logits(points).argmax(1).cpu() == label[first[draws]])
    return torch.cat(stays).to(x.device)
