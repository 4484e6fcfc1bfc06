r"""How far a point must move until its class changes: equations (1) and (2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import (
    check_bounds,
    check_count,
    check_positive,
    check_vectors,
)
from curvdetect._base.rows import batches, per_row
from curvdetect.geometry._boundary import find_boundary
from curvdetect.geometry._derivatives import margin_value
from curvdetect.geometry._nearest_classes import nearest_classes

__all__ = [
    "Perturbation",
    "find_adversarial_perturbation",
    "random_direction_robustness",
]

#: The interval in which a class changes is bisected to this part of its length and of
#: its far end; at the most so often, which matters for points on a boundary alone.
_PRECISION, _MAX_BISECTIONS = 1e-3, 60


class Perturbation(NamedTuple):
    r"""Smallest perturbations found; see :func:`find_adversarial_perturbation`.

    Attributes
    ----------
    points : Tensor of shape (n, *input_shape)
        x + r*, on the boundary; x itself where none was found.
    norms : Tensor of shape (n,)
        \|r*\|, in input units; infinite where none was found.
    other : Tensor of shape (n,), int64
        The class on the other side.
    found : Tensor of shape (n,), bool
        Whether a boundary was found.
    """

    points: Tensor
    norms: Tensor
    other: Tensor
    found: Tensor


def find_adversarial_perturbation(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    label: Tensor | None = None,
    n_boundaries: int = 5,
    n_projections: int = 20,
    bounds: tuple[float, float] | None = None,
    batch_size: int | None = None,
) -> Perturbation:
    """Find the smallest perturbation that changes the class.

    Equation (1): r*(x), of smallest L2 norm, and the robustness, its norm. The nearest
    of the boundary points that :func:`find_boundary` finds to several classes.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    label : Tensor of shape (n,), int64, optional
        The class to get away from; the predicted one by default. Where it is not the
        predicted one, the perturbation is 0.
    n_boundaries : int, default=5
        To how many classes boundaries are sought, those nearest to first order; to all
        of them where there are fewer.
    n_projections : int, default=20
        As in :func:`find_boundary`: what brings z near to x.
    bounds : (float, float), optional
        Smallest and largest value of an input: x + r* then stays in that box.
    batch_size : int, optional
        Rows given to `logits` at a time; all at once by default.

    Returns
    -------
    Perturbation
        Points on the boundary (a step of rounding size may be missing to the other
        side), norms in input units, and a mask. Cost: about n_projections + 3 forward
        and backward passes per boundary, and some for choosing the classes.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    Notes
    -----
    On two trained LeNets, within the bounds, the median norm was 1.01 times
    that of the best of DeepFool, DDN (300 steps) and FMN (500 steps) of foolbox.

    References
    ----------
    A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, "The robustness of deep networks: a
    geometrical perspective", IEEE SPM 34(6), 2017.

    Examples
    --------
    Two classes, inside and outside of the unit circle.

    >>> import torch
    >>> from curvdetect.geometry import find_adversarial_perturbation
    >>> logits = lambda x: torch.stack([1 - x.norm(dim=1), 0 * x[:, 0]], dim=1)
    >>> find_adversarial_perturbation(logits, torch.tensor([[0.3, 0.4]])).norms
    tensor([0.5000])
    """
    check_count("n_boundaries", n_boundaries)
    check_bounds(bounds)
    x = x.detach()
    near = nearest_classes(logits, x, n_boundaries, label=label, batch_size=batch_size)
    pairs = near.pairs
    boundary = find_boundary(
        pairs.margin(logits),
        pairs.rows(x),
        n_projections=n_projections,
        bounds=bounds,
        evaluated=(near.value.flatten(), near.gradient.flatten(0, 1)),
        batch_size=batch_size,
    )
    distances = boundary.distances.where(boundary.found, torch.inf)
    wrong = near.value < 0  # there already: the way is 0
    norms, nearest = pairs.by_point(distances).where(~wrong, 0).min(dim=1)
    of_point = torch.arange(len(x), device=x.device)
    points = pairs.by_point(boundary.points)[of_point, nearest]
    moves = (norms > 0) & norms.isfinite()
    return Perturbation(
        points=points.where(per_row(moves, x), x),
        norms=norms,
        other=pairs.classes.gather(1, nearest[:, None]).squeeze(1),
        found=norms.isfinite(),
    )


@torch.no_grad()
def random_direction_robustness(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    v: Tensor,
    *,
    max_norm: float,
    n_steps: int = 64,
    batch_size: int | None = None,
) -> Tensor:
    r"""Find how far the class is the same along given directions.

    Equation (2): the smallest \|alpha\| for which x + alpha v has another class, alpha
    of either sign.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    v : Tensor of shape (m, *input_shape)
        Unit directions, the same for all points: :func:`random_directions`.
    max_norm : float
        Largest \|alpha\|, in input units.
    n_steps : int, default=64
        How many lengths are tried on each side, evenly up to `max_norm`, the shortest
        first; the first interval in which the class changes is bisected to a
        thousandth of its length, and of the result. A region thinner than an interval
        may be missed.
    batch_size : int, optional
        Rows given to `logits` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n, m)
        Smallest \|alpha\|, in input units, too large by a thousandth at the most;
        infinite where the class is the same all the way. Cost: at most 2 n_steps + 21
        forward passes a point and direction, fewer the sooner the class changes; two
        more for each time that the first interval must be halved to be no longer than
        the result.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    References
    ----------
    A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, "Robustness of classifiers: from
    adversarial to random noise", NeurIPS 2016.

    Examples
    --------
    A half-space at distance 1, seen along an axis and along a diagonal.

    >>> import torch
    >>> from curvdetect.geometry import random_direction_robustness
    >>> logits = lambda x: torch.stack([1 - x[:, 0], 0 * x[:, 0]], dim=1)
    >>> v = torch.tensor([[-1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> norms = random_direction_robustness(logits, torch.zeros(1, 2), v, max_norm=4.0)
    >>> norms.round(decimals=2)
    tensor([[1.0000, 1.6700,    inf]])
    """
    check_positive("max_norm", max_norm)
    check_count("n_steps", n_steps)
    v = check_vectors("v", v, x)
    n, m = len(x), len(v)
    label = margin_value(logits, x, batch_size=batch_size).argmax(1)

    def changed(pairs: Tensor, alpha: Tensor) -> Tensor:
        """Return whether the class changes at +alpha or at -alpha, pair by pair."""
        results = []
        for run in batches(len(pairs), batch_size, x.device):
            row, direction = pairs[run] // m, v[pairs[run] % m]
            shift = per_row(alpha[run], x) * direction
            ahead, behind = logits(x[row] + shift), logits(x[row] - shift)
            other = (ahead.argmax(1) != label[row]) | (behind.argmax(1) != label[row])
            results.append(other)
        return torch.cat(results)

    found = x.new_full((n * m,), torch.inf)
    pairs = torch.arange(n * m, device=x.device)
    for step in range(1, n_steps + 1):
        reach = x.new_full((len(pairs),), max_norm * step / n_steps)
        other = changed(pairs, reach)
        found[pairs[other]] = reach[other]
        pairs = pairs[~other]
        if not len(pairs):
            break
    length = max_norm / n_steps
    near = (found - length).clamp(min=0)
    for _ in range(_MAX_BISECTIONS):
        narrow = _PRECISION * found.clamp(max=length)
        wide = found.isfinite() & (found - near > narrow)
        pairs = wide.nonzero().squeeze(1)
        if not len(pairs):
            break
        middle = (near[pairs] + found[pairs]) / 2
        other = changed(pairs, middle)
        found[pairs] = torch.where(other, middle, found[pairs])
        near[pairs] = torch.where(other, near[pairs], middle)
    return found.reshape(n, m)
