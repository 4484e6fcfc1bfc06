"""The trace of a Hessian."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from curvdetect.geometry._differences import CurvatureMethod, Differences
from curvdetect.geometry._estimates import trace_and_error
from curvdetect.geometry._margins import Margin
from curvdetect.geometry._operators import Operator
from curvdetect.geometry._sampling import Estimator, Sampling

__all__ = ["hessian_trace"]


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
    evaluated: tuple[Tensor, Tensor] | None = None,
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
    method, estimator, step, evaluated, batch_size
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
    sampling = Sampling(n_directions, estimator, generator, directions)
    sampling.check(method)
    differences = Differences.at(
        function,
        x,
        method=method,
        step=step,
        evaluated=evaluated,
        batch_size=batch_size,
    )
    operator = Operator(differences, tangent=False)
    traces = trace_and_error(operator, sampling, mean=False)
    return traces if return_error else traces[0]
