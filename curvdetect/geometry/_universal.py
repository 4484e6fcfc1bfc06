"""One perturbation for many points: equation (3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import (
    check_bounds,
    check_choice,
    check_count,
    check_positive,
    check_vectors,
)
from curvdetect._base.rows import batches
from curvdetect._base.warn import warn
from curvdetect.geometry._derivatives import margin_gradient, margin_value
from curvdetect.geometry._margins import RegionMargin

__all__ = [
    "UniversalPerturbation",
    "find_smallest_universal_perturbation",
    "find_universal_perturbation",
    "fooling_rate",
]

#: Step lengths as shares of the norm: large at first, small in the end.
_FIRST_STEP, _LAST_STEP = 0.2, 0.01
_MOMENTUM = 0.9
_N_DOUBLINGS = 20


class UniversalPerturbation(NamedTuple):
    """A universal perturbation; see :func:`find_smallest_universal_perturbation`.

    Attributes
    ----------
    perturbation : Tensor of shape (*input_shape)
        v.
    norm : float
        Its norm, in input units; infinite if no norm up to the largest was enough.
    rate : float
        Its fooling rate on the held-out points.
    """

    perturbation: Tensor
    norm: float
    rate: float


@torch.no_grad()
def fooling_rate(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    v: Tensor,
    *,
    bounds: tuple[float, float] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Return the share of points whose class perturbations change.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    v : Tensor of shape (m, *input_shape)
        Perturbations, each for all points.
    bounds : (float, float), optional
        x + v is clamped to these.
    batch_size : int, optional
        Rows given to `logits` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (m,)
        Shares of the points where argmax f(x + v) is not argmax f(x). Cost: m + 1
        forward passes a point.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import fooling_rate
    >>> logits = lambda x: torch.stack([1 - x[:, 0], 0 * x[:, 0]], dim=1)
    >>> x = torch.tensor([[0.0, 0.0], [0.6, 0.0]])
    >>> fooling_rate(logits, x, torch.tensor([[0.5, 0.0], [0.0, 2.0]]))
    tensor([0.5000, 0.0000])
    """
    v = check_vectors("v", v, x)
    check_bounds(bounds)
    n, m = len(x), len(v)
    label = margin_value(logits, x, batch_size=batch_size).argmax(1)
    fooled = []
    for pairs in batches(m * n, batch_size, x.device):
        moved = x[pairs % n] + v[pairs // n]
        if bounds is not None:
            moved = moved.clamp(*bounds)
        f = logits(moved)
        fooled.append((f.argmax(1) != label[pairs % n]) & f.isfinite().all(1))
    return torch.cat(fooled).reshape(m, n).to(x.dtype).mean(1)


def find_universal_perturbation(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    norm: float,
    p: float = 2,
    n_steps: int = 300,
    batch_size: int = 128,
    initial: Tensor | None = None,
    bounds: tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Learn a perturbation of a given norm that changes the class of many points.

    Stochastic descent with momentum on the mean of max(F(x + v), 0), F the margin of
    the class of x against the best other one, with \|v\|_2 = norm or \|v\|_inf <= norm.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points to learn from; judge the result on others, by :func:`fooling_rate`.
    norm : float
        Of the perturbation, in input units.
    p : {2, inf}, default=2
        Which norm.
    n_steps : int, default=300
        How many, each with some of the points.
    batch_size : int, default=128
        Points a step.
    initial : Tensor of shape (*input_shape), optional
        Where to begin; a random direction by default.
    bounds : (float, float), optional
        x + v is clamped to these.
    generator : torch.Generator, optional
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor of shape (*input_shape)
        v. Cost: n_steps times batch_size forward and backward passes.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    References
    ----------
    S.-M. Moosavi-Dezfooli, A. Fawzi, O. Fawzi, P. Frossard, "Universal adversarial
    perturbations", CVPR 2017.

    Examples
    --------
    Between two half-spaces there is one way across for all points.

    >>> import torch
    >>> from curvdetect.geometry import find_universal_perturbation
    >>> logits = lambda x: torch.stack([1 - x[:, 0], 0 * x[:, 0]], dim=1)
    >>> v = find_universal_perturbation(logits, torch.zeros(8, 2), norm=2.0)
    >>> bool(v.norm() - 2 < 1e-6), bool(v[0] > 1)
    (True, True)
    """
    check_positive("norm", norm)
    check_choice("p", p, (2, math.inf))
    check_count("n_steps", n_steps)
    check_count("batch_size", batch_size)
    check_bounds(bounds)
    if not len(x):
        raise ValueError("x must hold at least one point; got none")
    label = margin_value(logits, x, batch_size=batch_size).argmax(1)
    if initial is None:
        initial = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    (v,) = check_vectors("initial", initial.detach()[None], x)
    if not bool(v.any()):
        raise ValueError("initial must not be all zero: it has no direction")
    v = _scaled(v, norm, p)
    velocity = torch.zeros_like(v)
    for step in range(n_steps):
        rows = torch.randint(len(x), (min(batch_size, len(x)),), generator=generator)
        rows = rows.to(x.device)
        moved = x[rows] + v
        if bounds is not None:
            moved = moved.clamp(*bounds)
        region = RegionMargin(logits, label[rows])
        gradient = margin_gradient(_Positive(region), moved).mean(0)
        if not bool(gradient.any()):
            continue  # all of these are across
        velocity = _MOMENTUM * velocity + (1 - _MOMENTUM) * gradient
        if not bool(velocity.any()):
            continue  # two opposite steps: there is no direction to scale
        length = norm * _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (step / n_steps)
        if p == math.inf:
            v = (v - length * velocity.sign()).clamp(-norm, norm)
        else:
            v = _scaled(v - _scaled(velocity, length, p), norm, p)
    return v


def find_smallest_universal_perturbation(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    held_out: Tensor,
    *,
    rate: float = 0.9,
    first_norm: float = 1.0,
    p: float = 2,
    n_bisections: int = 5,
    n_steps: int = 300,
    batch_size: int = 128,
    bounds: tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
) -> UniversalPerturbation:
    """Find the smallest universal perturbation of a given fooling rate.

    Equation (3): the norm is doubled, or halved, until perturbations learned from `x`
    just change the class of enough of the held-out points, then bisected. Each is
    started from the last.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x, held_out : Tensor of shape (n, *input_shape)
        Points to learn from, and to judge by.
    rate : float, default=0.9
        Share of the held-out points whose class must change.
    first_norm : float, default=1.0
        Norm to begin with, in input units.
    p, n_steps, batch_size, bounds, generator
        As in :func:`find_universal_perturbation`.
    n_bisections : int, default=5
        Of the norm, between one that is enough and half of it, which is not: it is
        good to 2 to the power of -(n_bisections + 1) of itself.

    Returns
    -------
    UniversalPerturbation
        Perturbation, norm and rate. Cost: that of :func:`find_universal_perturbation`
        for each norm that is tried.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    Warns
    -----
    UserWarning
        If a millionth of `first_norm` is still enough.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import find_smallest_universal_perturbation
    >>> logits = lambda x: torch.stack([1 - x[:, 0], 0 * x[:, 0]], dim=1)
    >>> x = torch.zeros(8, 2)
    >>> found = find_smallest_universal_perturbation(logits, x, x, n_bisections=8)
    >>> round(found.norm, 1), found.rate
    (1.0, 1.0)
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1; got {rate!r}")
    check_positive("first_norm", first_norm)
    check_count("n_bisections", n_bisections)

    def learned(norm: float, initial: Tensor | None) -> UniversalPerturbation:
        v = find_universal_perturbation(
            logits,
            x,
            norm=norm,
            p=p,
            n_steps=n_steps,
            batch_size=batch_size,
            initial=initial,
            bounds=bounds,
            generator=generator,
        )
        reached = fooling_rate(
            logits, held_out, v[None], bounds=bounds, batch_size=batch_size
        )
        return UniversalPerturbation(v, norm, float(reached))

    if not len(held_out):
        raise ValueError("held_out must hold at least one point; got none")
    enough = _enclosed(learned, first_norm, rate)
    if enough.rate < rate:
        return enough._replace(norm=math.inf)
    low, high = enough.norm / 2, enough.norm
    for _ in range(n_bisections):
        middle = (low + high) / 2
        tried = learned(middle, enough.perturbation)
        if tried.rate >= rate:
            enough, high = tried, middle
        else:
            low = middle
    return enough


def _enclosed(
    learned: Callable[[float, Tensor | None], UniversalPerturbation],
    first_norm: float,
    rate: float,
) -> UniversalPerturbation:
    """Halve or double the norm; return one that is enough, and not if it is halved."""
    enough = learned(first_norm, None)
    factor = 0.5 if enough.rate >= rate else 2.0
    for _ in range(_N_DOUBLINGS):
        tried = learned(factor * enough.norm, enough.perturbation)
        if factor < 1 and tried.rate < rate:
            break
        enough = tried
        if factor > 1 and tried.rate >= rate:
            break
    else:
        if factor < 1:
            warn(
                f"a universal perturbation of norm {enough.norm:.3g} still changes the "
                f"class of enough points, after {_N_DOUBLINGS} halvings of first_norm="
                f"{first_norm:g}; the smallest may be far shorter. Lower first_norm."
            )
    return enough


class _Positive:
    """max(F, 0) of a margin: points that are across already pull no more."""

    def __init__(self, margin: RegionMargin) -> None:
        self.margin = margin

    def __call__(self, x: Tensor) -> Tensor:
        return self.margin(x).relu()

    def take(self, rows: Tensor) -> _Positive:
        return _Positive(self.margin.take(rows))


def _scaled(v: Tensor, norm: float, p: float) -> Tensor:
    return v * (norm / torch.linalg.vector_norm(v, ord=p))
