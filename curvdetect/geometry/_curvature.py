"""Normal and average curvature of level sets of a margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice, check_positive
from curvdetect.geometry._derivatives import margin_value_and_gradient
from curvdetect.geometry._directions import Householder, project_to_tangent
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
from curvdetect.geometry._trace import estimated_trace
from curvdetect.geometry._xtrace import xtrace

__all__ = ["goldman_curvature", "mean_curvature", "normal_curvature"]


def normal_curvature(
    margin: Margin,
    z: Tensor,
    v: Tensor,
    *,
    method: CurvatureMethod = "forward",
    step: float = 0.1,
    start: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Curvature of a level set along given tangents.

    kappa(v) = - v^T H v / (\|v\|^2 \|g\|), equation (5) in the package's sign:
    positive where the predicted region is locally convex. The level set is that
    through `z`; it is the boundary where F(z) = 0.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    z : Tensor of shape (n, *input_shape)
        Points.
    v : Tensor of shape (n, m, *input_shape)
        Tangent directions of each point, of any length. A part along the normal is
        not removed.
    method : {"forward", "gradient", "autodiff"}, default="forward"
        Second differences of F, differences of its gradient, or exact second
        derivatives; see :func:`mean_curvature`.
    step : float, default=0.1
        h, an L2 length in input units. Not used by "autodiff".
    start : tuple of Tensor, optional
        F and its gradient at `z`, if they are known already.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n, m)
        Curvatures, in 1 / input units; NaN where the gradient vanishes. Cost per
        direction: two forward passes ("forward"), a forward and a backward
        ("gradient"), or about three times that ("autodiff").

    Raises
    ------
    ValueError
        If `method`, `step` or the shape of `v` is not allowed.

    Examples
    --------
    A cylinder of radius 2 is curved around its axis and flat along it.

    >>> import torch
    >>> from curvdetect.geometry import normal_curvature
    >>> cylinder = lambda x: 2 - x[:, :2].norm(dim=1)
    >>> z = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    >>> v = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    >>> normal_curvature(cylinder, z, v, step=1e-3).round(decimals=4)
    tensor([[0.5000, -0.0000]], dtype=torch.float64)
    """
    if v.shape[:1] + v.shape[2:] != z.shape:
        raise ValueError(
            "v must hold directions for every row of z, shape (n, m, *input_shape); "
            f"got {tuple(v.shape)} for z of shape {tuple(z.shape)}"
        )
    check_choice("method", method, get_args(CurvatureMethod))
    check_positive("step", step)
    if start is None:
        start = margin_value_and_gradient(margin, z, batch_size=batch_size)
    n, m = v.shape[:2]
    v = v.reshape(n * m, -1)
    v = v / v.norm(dim=1, keepdim=True)
    second = second_derivatives(
        margin,
        z,
        m,
        lambda pairs: v[pairs],
        method=method,
        step=step,
        start=start,
        batch_size=batch_size,
        stacklevel=2,
    )
    return -second / start[1].flatten(1).norm(dim=1)[:, None]


def mean_curvature(
    margin: Margin,
    z: Tensor,
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
    r"""Average curvature of a level set: the mean of its principal curvatures.

    kappa = mean over unit tangents v of - v^T H v / \|g\|, which is Goldman's formula
    (g^T H g - tr(H) \|g\|^2) / ((d - 1) \|g\|^3): positive where the predicted region
    is locally convex, +1/r for a ball of radius r. The level set is that through `z`;
    it is the boundary where F(z) = 0.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    z : Tensor of shape (n, *input_shape)
        Points, of at least two values each.
    method : {"forward", "gradient", "autodiff"}, default="forward"
        - "forward": (F(z + hv) - 2 F(z) + F(z - hv)) / h^2, forward passes only,
          error O(h^2);
        - "gradient": v . (g(z + hv) - g(z)) / h, error O(h);
        - "autodiff": v^T H v by differentiating twice. Right for smooth functions
          only: the Hessian of a ReLU network is zero almost everywhere, and this
          method warns when it meets that.
    n_directions : int or "all", default=8
        Random tangents averaged over, or "all" for an orthonormal basis of the
        tangent space, d - 1 directions close to the coordinate axes: no sampling
        error, at a high cost. (Where the function has kinks, second differences over
        a finite step are no quadratic form in v, and the average over a basis is not
        that over the sphere.)
    estimator : {"hutchinson", "xtrace"}, default="hutchinson"
        - "hutchinson": the plain average over m random tangents. Its standard error is
          the spread of the normal curvatures over sqrt(m); their variance is
          2 (tr(A^2)/(d-1) - kappa^2) / (d + 1) for shape operator A.
        - "xtrace" [2]_: half of the products find the directions of large curvature,
          which then add no error. For smooth functions and many products: on the
          boundaries of two LeNets with softplus its error was 0.9 times Hutchinson's
          at 64 products and 0.7 to 0.8 times at 128, but larger below 64. It relies on
          products linear in v, and is biased where they are not: not for ReLU networks
          at a finite step. Its standard error is the spread of leave-one-out
          estimates, which are not quite independent: 0.8 to 0.95 times the true error
          in our tests.
    step : float, default=0.1
        h, an L2 length in input units. Not used by "autodiff".
    return_error : bool, default=False
        Whether the standard error of the estimate is wanted too.
    generator : torch.Generator, optional
        Source of the random directions, on the CPU. The same directions serve all
        rows, projected on the tangent space of each: a row's result does not
        depend on the other rows (but the errors of different rows are correlated).
    directions : Tensor of shape (m, *input_shape), optional
        These instead of random ones; `n_directions` and `generator` are not used.
    start : tuple of Tensor, optional
        F and its gradient at `z`, if they are known already.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n,), or (2, n) with `return_error`
        Average curvatures, in 1 / input units, then their standard errors: 0 for
        "all", NaN for a single direction. NaN where the gradient vanishes. Cost: that
        of :func:`normal_curvature` times the number of directions, and a forward and
        a backward pass at `z`.

    Raises
    ------
    ValueError
        If a parameter is not allowed, or an input has fewer than two values.

    Warns
    -----
    UserWarning
        If `method` is "autodiff" and the margin is piecewise linear.

    See Also
    --------
    goldman_curvature : The same from the trace of the plain Hessian.

    References
    ----------
    .. [1] A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, S. Soatto, "Empirical study
       of the topology and geometry of deep networks", CVPR 2018.
    .. [2] E. N. Epperly, J. A. Tropp, R. J. Webber, "XTrace: making the most of every
       sample in stochastic trace estimation", SIAM J. Matrix Anal. Appl. 45(1), 2024.

    Examples
    --------
    A ball of radius 2.

    >>> import torch
    >>> from curvdetect.geometry import mean_curvature
    >>> ball = lambda x: 2 - x.norm(dim=1)
    >>> z = torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64)
    >>> mean_curvature(ball, z, step=1e-3).round(decimals=4)
    tensor([0.5000], dtype=torch.float64)
    """
    d = _dimension(z)
    check_sampling(method, step, n_directions, estimator, directions)
    if start is None:
        start = margin_value_and_gradient(margin, z, batch_size=batch_size)
    if estimator == "xtrace":
        operator = Operator(
            margin,
            z,
            tangent=True,
            method=method,
            step=step,
            start=start,
            batch_size=batch_size,
        )
        traces = xtrace(
            operator,
            n_products=int(n_directions),
            generator=generator,
            stacklevel=3,
        )
        return _result(traces / (d - 1), return_error)
    gradient = start[1].flatten(1)
    steepness = gradient.norm(dim=1)
    normal = gradient / steepness[:, None]
    tangents: Callable[[Tensor], Tensor]
    exact = directions is None and n_directions == "all"
    if exact:
        m, basis = d - 1, Householder(normal)
        tangents = lambda pairs: basis.columns(pairs // m, pairs % m)
    else:
        flat = shared_directions(n_directions, z, generator, directions)
        m = len(flat)
        tangents = lambda pairs: project_to_tangent(flat[pairs % m], normal[pairs // m])
    second = second_derivatives(
        margin,
        z,
        m,
        tangents,
        method=method,
        step=step,
        start=start,
        batch_size=batch_size,
        stacklevel=2,
    )
    return _result(mean_and_error(-second / steepness[:, None], exact), return_error)


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
    start: tuple[Tensor, Tensor] | None = None,
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
    method, step, start, batch_size
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
    d = _dimension(z)
    check_sampling(method, step, n_directions, estimator, directions)
    if start is None:
        start = margin_value_and_gradient(margin, z, batch_size=batch_size)
    gradient = start[1].flatten(1)
    steepness = gradient.norm(dim=1)
    normal = gradient / steepness[:, None]
    trace, error = estimated_trace(
        margin,
        z,
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
    along_normal = second_derivatives(
        margin,
        z,
        1,
        lambda pairs: normal[pairs],
        method=method,
        step=step,
        start=start,
        batch_size=batch_size,
        stacklevel=None,
    ).squeeze(1)
    kappa = torch.stack([along_normal - trace, error]) / ((d - 1) * steepness)
    return _result(kappa, return_error)


def _dimension(z: Tensor) -> int:
    d = math.prod(z.shape[1:])
    if d < 2:
        raise ValueError(
            "z must hold points of at least 2 values for a tangent space to exist; "
            f"got input shape {tuple(z.shape[1:])}"
        )
    return d


def _result(estimate: Tensor, return_error: bool) -> Tensor:
    return estimate if return_error else estimate[0]
