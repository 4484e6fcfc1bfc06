"""How much a function falls around a point, for all its outputs at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice
from curvdetect._base.rows import batches
from curvdetect.geometry._derivatives import recorded_value
from curvdetect.geometry._directions import WholeSpace

__all__ = ["mean_decrease"]


def mean_decrease(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    directions: Tensor | Literal["all"],
    *,
    step: float,
    value: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Return how much a function falls, on average, one step away from a point.

    That is f(x) - E_u[f(x + h u)] over the given unit directions u and their
    opposites; -h^2/(2d) times the trace of the Hessian "at scale h". It is the
    numerator of Goldman's formula without the division by the gradient, in the
    package's sign: positive where f is concave. All outputs of f are served by the
    same passes, so a classifier's logits cost no more than one margin.

    Parameters
    ----------
    function : callable
        f: (n, *input_shape) -> (n, n_outputs), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    directions : Tensor of shape (n_directions, *input_shape), or "all"
        Unit vectors u; -u is used too. "all" for the d coordinate axes, which are made
        a batch at a time: with a `batch_size`, no d x d numbers are held.
    step : float
        h, an L2 length in input units.
    value : Tensor, optional
        f(x), if it is known already; with its graph, where a gradient is wanted.
    batch_size : int, optional
        Rows given to `function` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n, n_outputs)
        In the units of f. Differentiable if `x` requires a gradient; otherwise nothing
        is recorded. Cost: 2 n_directions + 1 forward passes a row.

    Raises
    ------
    ValueError
        If `directions` is a string other than "all".

    Examples
    --------
    For f = -\|x\|^2 the decrease is h^2, everywhere and in every direction.

    >>> import torch
    >>> from curvdetect.geometry import mean_decrease
    >>> f = lambda x: -(x**2).sum(1, keepdim=True)
    >>> mean_decrease(f, torch.zeros(1, 2), torch.eye(2), step=0.5)
    tensor([[0.2500]])
    """
    if isinstance(directions, str):
        check_choice("directions", directions, ("all",))
        n_directions = math.prod(x.shape[1:])
    else:
        n_directions = len(directions)
    recorded = torch.is_grad_enabled() and x.requires_grad
    with torch.set_grad_enabled(recorded):
        centre = value
        if centre is None:
            centre = recorded_value(function, x, batch_size)
        total = torch.zeros_like(centre)
        for pairs in batches(len(x) * n_directions, batch_size, x.device):
            rows, k = pairs // n_directions, pairs % n_directions
            if isinstance(directions, str):
                unit = WholeSpace(x.flatten(1)).columns(rows, k)
                shift = step * unit.reshape(-1, *x.shape[1:])
            else:
                shift = step * directions[k]
            for probe in (x[rows] + shift, x[rows] - shift):
                total.index_add_(0, rows, centre[rows] - function(probe))
        return total / (2 * n_directions)
