"""Normal and average curvature of level sets of a margin."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from curvdetect.geometry._derivatives import (
    batches,
    margin_value,
    margin_value_and_gradient,
    second_derivative,
)
from curvdetect.geometry._directions import (
    Householder,
    project_to_tangent,
    random_directions,
)
from curvdetect.geometry._margins import Margin, take_rows

__all__ = ["CurvatureMethod", "mean_curvature", "normal_curvature"]

#: How second derivatives are taken.
CurvatureMethod: TypeAlias = Literal["forward", "gradient", "autodiff"]


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
    n, m = v.shape[:2]
    v = v.reshape(n * m, -1)
    v = v / v.norm(dim=1, keepdim=True)
    return _curvatures(
        margin, z, m, lambda pairs: v[pairs], method, step, start, batch_size
    )


def mean_curvature(
    margin: Margin,
    z: Tensor,
    *,
    method: CurvatureMethod = "forward",
    n_directions: int | Literal["all"] = 8,
    step: float = 0.1,
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
        that over the sphere.) With m
        random tangents the standard error is the spread of the normal curvatures
        over sqrt(m); the spread is that of v^T A v on the sphere, with variance
        2 (tr(A^2)/(d-1) - kappa^2) / (d + 1) for shape operator A.
    step : float, default=0.1
        h, an L2 length in input units. Not used by "autodiff".
    generator : torch.Generator, optional
        Source of the random directions, on the CPU. The same directions serve all
        rows, projected on the tangent space of each: a row's result does not
        depend on the other rows.
    directions : Tensor of shape (m, *input_shape), optional
        These instead of random ones; `n_directions` and `generator` are not used.
    start : tuple of Tensor, optional
        F and its gradient at `z`, if they are known already.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n,)
        Average curvatures, in 1 / input units; NaN where the gradient vanishes.
        Cost: that of :func:`normal_curvature` times the number of directions, and
        a forward and a backward pass at `z`.

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
    >>> from curvdetect.geometry import mean_curvature
    >>> ball = lambda x: 2 - x.norm(dim=1)
    >>> z = torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64)
    >>> mean_curvature(ball, z, step=1e-3).round(decimals=4)
    tensor([0.5000], dtype=torch.float64)
    """
    d = math.prod(z.shape[1:])
    if d < 2:
        raise ValueError(
            "z must hold points of at least 2 values for a tangent space to exist; "
            f"got input shape {tuple(z.shape[1:])}"
        )
    if start is None:
        start = margin_value_and_gradient(margin, z, batch_size=batch_size)
    gradient = start[1].flatten(1)
    normal = gradient / gradient.norm(dim=1, keepdim=True)

    if directions is None and n_directions == "all":
        basis = Householder(normal)
        m = d - 1

        def tangents(pairs: Tensor) -> Tensor:
            return basis.columns(pairs // m, pairs % m)

    else:
        if directions is None:
            _check_n_directions(n_directions)
            directions = random_directions(
                int(n_directions),
                z.shape[1:],
                generator=generator,
                dtype=z.dtype,
                device=z.device,
            )
        flat = directions.flatten(1)
        m = len(flat)

        def tangents(pairs: Tensor) -> Tensor:
            return project_to_tangent(flat[pairs % m], normal[pairs // m])

    return _curvatures(margin, z, m, tangents, method, step, start, batch_size).mean(1)


def _curvatures(
    margin: Margin,
    z: Tensor,
    m: int,
    tangents: Callable[[Tensor], Tensor],
    method: CurvatureMethod,
    step: float,
    start: tuple[Tensor, Tensor] | None,
    batch_size: int | None,
) -> Tensor:
    """Return the curvature of pair p = (row p // m, direction p % m), as (n, m).

    `tangents` makes the unit tangents of some pairs, shape (len(pairs), d), so that
    no more than a batch of them is held.
    """
    _check_method(method)
    _check_step(step)
    if start is None:
        start = margin_value_and_gradient(margin, z, batch_size=batch_size)
    value, gradient = start
    steepness = gradient.flatten(1).norm(dim=1)
    seconds = []
    for pairs in batches(len(z) * m, batch_size, z.device):
        rows = pairs // m
        seconds.append(
            second_derivative(
                take_rows(margin, rows),
                z[rows],
                tangents(pairs).reshape(-1, *z.shape[1:]),
                method=method,
                step=step,
                value=value[rows],
                gradient=gradient[rows],
            )
        )
    second = torch.cat(seconds).reshape(-1, m)
    if method == "autodiff":
        _warn_if_piecewise_linear(
            margin, z, tangents, m, step, second, start, batch_size
        )
    return -second / steepness[:, None]


def _warn_if_piecewise_linear(
    margin: Margin,
    z: Tensor,
    tangents: Callable[[Tensor], Tensor],
    m: int,
    step: float,
    second: Tensor,
    start: tuple[Tensor, Tensor],
    batch_size: int | None,
) -> None:
    """Warn where every exact second derivative is 0 but the margin is not flat.

    An affine margin has zero derivatives too, and rightly so: what tells the two
    apart is a second difference over a finite step, one probe a row.
    """
    if not second.numel() or bool(second.any()):
        return
    rows = torch.arange(len(z), device=z.device)
    v = tangents(rows * m).reshape_as(z)
    second_difference = -2 * start[0]
    for probe in (z + step * v, z - step * v):
        second_difference += margin_value(margin, probe, batch_size=batch_size)
    scale = 1e-4 * step * start[1].flatten(1).norm(dim=1)
    if bool((second_difference.abs() > scale).any()):
        warnings.warn(
            "every exact second derivative is zero, but the function is not flat at "
            f"step={step:g}: it is piecewise linear (ReLU, max-pooling). Use "
            'method="forward" or "gradient", which measure curvature at a finite step.',
            UserWarning,
            stacklevel=4,
        )


def _check_method(method: str) -> None:
    if method not in get_args(CurvatureMethod):
        raise ValueError(
            f"method must be one of {get_args(CurvatureMethod)}; got {method!r}"
        )


def _check_step(step: float) -> None:
    if not (isinstance(step, Real) and 0 < float(step) < math.inf):
        raise ValueError(f"step must be a positive finite number; got {step!r}")


def _check_n_directions(n_directions: int | str) -> None:
    if not isinstance(n_directions, Integral) or n_directions < 1:
        raise ValueError(
            f'n_directions must be a positive integer or "all"; got {n_directions!r}'
        )
