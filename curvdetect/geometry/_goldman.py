"""The average curvature of level sets, from the trace of the plain Hessian."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from curvdetect.geometry._differences import CurvatureMethod, Differences
from curvdetect.geometry._directions import check_tangent_space
from curvdetect.geometry._estimates import trace_and_error
from curvdetect.geometry._margins import Margin
from curvdetect.geometry._operators import Operator
from curvdetect.geometry._sampling import Estimator, Sampling

__all__ = ["goldman_curvature"]


def goldman_curvature(
    margin: Margin,
    z: Tensor,
    *,
    method: CurvatureMethod = "forward",
    n_directions: int | Literal["all"] = "all",
    estimator: Estimator = "hutchinson",
    step: float = 0.1,
    return_error: bool = False,
    generator: torch.Generator | None = None,
    directions: Tensor | None = None,
    evaluated: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Average curvature of a level set by Goldman's formula.

    kappa = (g^T H g - tr(H) \|g\|^2) / ((d - 1) \|g\|^3): equation (7) of the
    literature with the constant d - 1 in place of 2, in the package's sign. For smooth
    functions this is what :func:`mean_curvature` measures, from directions that need
    not be tangent; at a finite step the two weigh what is curved differently. With its
    defaults, along the coordinate axes, it is the measure of the report.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    z : Tensor of shape (n, *input_shape)
        Points, of at least two values each.
    method, step, evaluated, batch_size
        As in :func:`mean_curvature`.
    n_directions, estimator, generator, directions
        Of the trace, as in :func:`hessian_trace`.
    return_error : bool, default=False
        Whether the standard error of the estimate is wanted too.

    Returns
    -------
    Tensor of shape (n,), or (2, n) with `return_error`
        Average curvatures, in 1 / input units, then their standard errors. NaN where
        the gradient vanishes. Cost: that of :func:`hessian_trace`, and one direction
        more.

    Raises
    ------
    ValueError
        If a parameter is not allowed, or an input has fewer than two values.

    Warns
    -----
    UserWarning
        If `method` is "autodiff" and the margin is piecewise linear.

    References
    ----------
    R. Goldman, "Curvature formulas for implicit curves and surfaces", CAGD 22(7),
    2005.

    Examples
    --------
    A ball of radius 2.

    >>> import torch
    >>> from curvdetect.geometry import goldman_curvature
    >>> ball = lambda x: 2 - x.norm(dim=1)
    >>> z = torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64)
    >>> goldman_curvature(ball, z, step=1e-3).round(decimals=4)
    tensor([0.5000], dtype=torch.float64)
    """
    check_tangent_space(z)
    sampling = Sampling(n_directions, estimator, generator, directions)
    sampling.check(method)
    differences = Differences.at(
        margin, z, method=method, step=step, evaluated=evaluated, batch_size=batch_size
    )
    steepness = differences.steepness
    normal = differences.gradient.flatten(1) / steepness[:, None]
    operator = Operator(differences, tangent=False)
    trace, error = trace_and_error(operator, sampling, mean=False)
    along_normal = differences.second(1, lambda pairs: normal[pairs]).squeeze(1)
    kappa = torch.stack([along_normal - trace, error])
    kappa = kappa / ((operator.dimension - 1) * steepness)
    return kappa if return_error else kappa[0]
