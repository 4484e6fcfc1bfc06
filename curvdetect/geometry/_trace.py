"""The trace of a Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from curvdetect.geometry._derivatives import margin_value_and_gradient
from curvdetect.geometry._directions import CoordinateAxes
from curvdetect.geometry._margins import Margin
from curvdetect.geometry._operators import Operator
from curvdetect.geometry._sampling import (
    CurvatureMethod,
    Estimator,
    check_sampling,
    mean_and_error,
    second_derivatives,
    shared_directions,
)
from curvdetect.geometry._xtrace import xtrace

__all__ = ["estimated_trace", "hessian_trace"]


def hessian_trace(
    function: Margin,
    x: Tensor,
    *,
    method: CurvatureMethod = "forward",
    n_directions: int | Literal["all"] = 8,
    estimator: Estimator = "hutchinson",
    step: float = 0.1,
    return_error: bool = False,
    generator: torch.Generator | None = None,
    directions: Tensor | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Trace of the Hessian of a function of the input: its Laplacian.

    tr H = d times the mean of u^T H u over unit vectors u. For a loss, the sum of its
    curvature profile (equation (4)), positive where the loss is convex.

    Parameters
    ----------
    function : callable
        (n, *input_shape) -> (n,), each row for itself: a :class:`ClassLoss`, say, or
        a margin.
    x : Tensor of shape (n, *input_shape)
        Points.
    method, estimator, step, start, batch_size
        As in :func:`mean_curvature`.
    n_directions : int or "all", default=8
        Random unit vectors averaged over, or "all" for the d coordinate axes.
    return_error : bool, default=False
        Whether the standard error of the estimate is wanted too.
    generator : torch.Generator, optional
        Source of the random directions, on the CPU. The same serve all rows.
    directions : Tensor of shape (m, *input_shape), optional
        These unit vectors instead of random ones.

    Returns
    -------
    Tensor of shape (n,), or (2, n) with `return_error`
        Traces, in units of the function per squared input unit, then their standard
        errors: 0 for "all", NaN for a single direction. Cost: that of
        :func:`normal_curvature` times the number of directions.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    Warns
    -----
    UserWarning
        If `method` is "autodiff" and the function is piecewise linear.

    References
    ----------
    M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines", Communications in Statistics 18(3), 1989.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import hessian_trace
    >>> saddle = lambda x: x[:, 0] ** 2 - 3 * x[:, 1] ** 2
    >>> x = torch.zeros(1, 2, dtype=torch.float64)
    >>> hessian_trace(saddle, x, n_directions="all").round(decimals=6)
    tensor([-4.], dtype=torch.float64)
    """
    check_sampling(method, step, n_directions, estimator, directions)
    traces = estimated_trace(
        function,
        x,
        method=method,
        n_directions=n_directions,
        estimator=estimator,
        step=step,
        generator=generator,
        directions=directions,
        start=start,
        batch_size=batch_size,
        stacklevel=3,
    )
    return traces if return_error else traces[0]


def estimated_trace(
    function: Margin,
    x: Tensor,
    *,
    method: str,
    n_directions: int | str,
    estimator: str,
    step: float,
    generator: torch.Generator | None,
    directions: Tensor | None,
    start: tuple[Tensor, Tensor] | None,
    batch_size: int | None,
    stacklevel: int,
) -> Tensor:
    """Return traces and standard errors, (2, n); parameters are checked already."""
    if start is None:
        start = margin_value_and_gradient(function, x, batch_size=batch_size)
    if estimator == "xtrace":
        operator = Operator(
            function,
            x,
            tangent=False,
            method=method,
            step=step,
            start=start,
            batch_size=batch_size,
        )
        return xtrace(
            operator,
            n_products=int(n_directions),
            generator=generator,
            stacklevel=stacklevel + 1,
        )
    d = math.prod(x.shape[1:])
    unit: Callable[[Tensor], Tensor]
    exact = directions is None and n_directions == "all"
    if exact:
        m, axes = d, CoordinateAxes(x.flatten(1))
        unit = lambda pairs: axes.columns(pairs, pairs % m)
    else:
        flat = shared_directions(n_directions, x, generator, directions)
        m = len(flat)
        unit = lambda pairs: flat[pairs % m]
    second = second_derivatives(
        function,
        x,
        m,
        unit,
        method=method,
        step=step,
        start=start,
        batch_size=batch_size,
        stacklevel=stacklevel,
    )
    return mean_and_error(d * second, exact)
