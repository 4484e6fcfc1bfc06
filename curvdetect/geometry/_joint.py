"""The smallest change for which several functions are positive at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import check_bounds, check_count, check_positive
from curvdetect._base.rows import per_row

__all__ = ["JointPerturbation", "find_joint_perturbation"]

#: Part of the radius that a step is long at first; at the end, a fiftieth of that.
_STEP, _LAST = 0.3, 0.02
#: By which part the radius grows and shrinks, at first and in the last part.
_CHANGE, _LATER, _LAST_PART = 0.05, 0.02, 0.4
#: How far inside each condition to aim, and what more counts beside the violated ones.
_INSIDE, _FURTHER = 0.02, 0.02
#: More than that inside counts no more.
_ENOUGH = 3.0


class JointPerturbation(NamedTuple):
    r"""What :func:`find_joint_perturbation` found.

    Attributes
    ----------
    points : Tensor of shape (n, *input_shape)
        x + r; x itself where nothing was found.
    norms : Tensor of shape (n,)
        \|r\|, in input units; infinite where nothing was found.
    """

    points: Tensor
    norms: Tensor


def find_joint_perturbation(
    conditions: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    radius: float,
    holds: Callable[[Tensor], Tensor] | None = None,
    bounds: tuple[float, float] | None = None,
    initial: Tensor | None = None,
    n_steps: int = 150,
) -> JointPerturbation:
    r"""Find a small perturbation with which all conditions hold.

    min \|r\| such that g_k(x + r) > 0 for all k: steps along the gradient of what is
    violated, on a sphere that shrinks where all hold and grows where one does not. An
    upper bound, like every attack.

    Parameters
    ----------
    conditions : callable
        g: (n, *input_shape) -> (n, m), differentiable, each row for itself; of the
        order of 1 where they matter.
    x : Tensor of shape (n, *input_shape)
        Points; all at once.
    radius : float
        Where to begin, in input units: about as long as what is sought.
    holds : callable, optional
        (n, *input_shape) -> (n,) of bool: what counts in the end, if the conditions
        only stand for it. By default whether all are positive.
    bounds : (float, float), optional
        Smallest and largest value of an input: x + r stays in that box.
    initial : Tensor of shape (n, *input_shape), optional
        Where to begin instead of at x: another one may find a shorter way.
    n_steps : int, default=150
        Steps.

    Returns
    -------
    JointPerturbation
        The shortest of all steps with which they hold. Cost: a forward and a backward
        pass of all conditions a step, and `holds`.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    References
    ----------
    J. Rony, L. G. Hafemann, L. S. Oliveira, I. Ben Ayed, R. Sabourin, E. Granger,
    "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks
    and defenses", CVPR 2019, for one condition.

    Examples
    --------
    The corner of two half-planes.

    >>> import torch
    >>> from curvdetect.geometry import find_joint_perturbation
    >>> found = find_joint_perturbation(lambda x: x - 1, torch.zeros(1, 2), radius=1.0)
    >>> bool(abs(found.norms - 2**0.5) < 0.03)
    True
    """
    check_positive("radius", radius)
    check_bounds(bounds)
    check_count("n_steps", n_steps)
    low, high = bounds or (-torch.inf, torch.inf)
    x = x.detach()
    best, norms = x.clone(), x.new_full((len(x),), torch.inf)
    change = torch.zeros_like(x) if initial is None else initial.detach() - x
    allowed = x.new_full((len(x),), radius)
    if initial is not None:
        allowed = _lengths(change).clamp(min=1e-6)
    for step in range(n_steps):
        point = (x + change).requires_grad_()
        with torch.enable_grad():
            found = conditions(point)
            lacking = (found - _INSIDE).clamp(max=0) + _FURTHER * found.clamp(
                max=_ENOUGH
            )
            (way,) = torch.autograd.grad(lacking.sum(), point)
        point = point.detach()
        ok = (found.detach() > 0).all(dim=1) if holds is None else holds(point)
        length = _lengths(change)
        shorter = ok & (length < norms)
        norms = length.where(shorter, norms)
        best = point.where(per_row(shorter, x), best)
        done = step / n_steps
        grow = _CHANGE if done < 1 - _LAST_PART else _LATER
        allowed = torch.where(ok, length.minimum(allowed) * (1 - grow), allowed)
        allowed = torch.where(ok, allowed, allowed * (1 + grow))
        share = _LAST + (1 - _LAST) * (1 + math.cos(math.pi * done)) / 2
        # Where nothing pulls, all is well beyond: the sphere alone moves it.
        change = change + per_row(_STEP * share * allowed, x) * _directions(way)
        change = per_row(allowed, x) * _directions(change)
        change = (x + change).clamp(low, high) - x
    return JointPerturbation(best, norms)


def _lengths(of: Tensor) -> Tensor:
    return of.flatten(1).norm(dim=1)


def _directions(of: Tensor) -> Tensor:
    """Return unit vectors; zero for zero."""
    return of / per_row(_lengths(of).clamp(min=torch.finfo(of.dtype).tiny), of)
