"""Principal curvatures of level sets, and the eigenvalues of plain Hessians."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice, check_count, check_positive
from curvdetect._base.warn import warn
from curvdetect.geometry._differences import Differences
from curvdetect.geometry._directions import check_tangent_space
from curvdetect.geometry._eigen import (
    Spectrum,
    Which,
    dense_eigenpairs,
    leading_eigenpairs,
)
from curvdetect.geometry._margins import Margin
from curvdetect.geometry._operators import (
    Operator,
    ProductMethod,
    check_precision,
)

__all__ = ["hessian_eigenvalues", "principal_curvatures"]


def principal_curvatures(
    margin: Margin,
    z: Tensor,
    *,
    k: int | None = None,
    which: Which = "magnitude",
    method: ProductMethod = "gradient",
    step: float = 0.1,
    directions: bool = True,
    tol: float = 1e-4,
    max_iter: int = 40,
    generator: torch.Generator | None = None,
    evaluated: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = 256,
) -> Spectrum:
    r"""Principal curvatures and directions of a level set.

    The eigenpairs of - P H P / \|g\| on the tangent space, P = I - n n^T: equation (6)
    in the package's sign, positive where the predicted region is locally convex. The
    level set is that through `z`; it is the boundary where F(z) = 0.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    z : Tensor of shape (n, *input_shape)
        Points, of at least two values each.
    k : int, optional
        How many. By default all d - 1, from a dense matrix: the products of H with an
        orthonormal basis of the tangent space, in that basis, symmetrised. With `k`,
        block Lanczos with restarts, which forms no matrix.
    which : {"magnitude", "largest", "smallest"}, default="magnitude"
        With `k`: those of largest absolute value, the most positive or the most
        negative.
    method : {"gradient", "autodiff"}, default="gradient"
        - "gradient": H v = (g(z + hv) - g(z)) / h, error O(h);
        - "autodiff": exact, through attention as well. For smooth functions only: the
          Hessian of a ReLU network is zero almost everywhere, and this method warns
          when it meets that.
    step : float, default=0.1
        h, an L2 length in input units. Not used by "autodiff".
    directions : bool, default=True
        Whether the principal directions are wanted too: all of them take d - 1 times
        the memory of the points.
    tol : float, default=1e-4
        With `k`: largest residual \|A v - kappa v\|, relative to the largest curvature
        that was met. The error of a curvature is at most the residual, and near its
        square over the gap to the other curvatures.
    max_iter : int, default=40
        With `k`: how many blocks of k products at the most.
    generator : torch.Generator, optional
        With `k`: source of the start vectors, on the CPU.
    evaluated : tuple of Tensor, optional
        F and its gradient at `z`, if they are known already.
    batch_size : int or None, default=256
        Rows given to `margin` at a time; None for all at once.

    Returns
    -------
    Spectrum
        Curvatures of shape (n, k), k = d - 1 by default, in 1 / input units, from the
        most positive to the most negative, NaN where the gradient vanishes; unit
        directions of shape (n, k, *input_shape); and a mask of the rows that converged.
        Cost: a forward and a backward pass per product ("gradient"; about three times
        that for "autodiff"), d - 1 products for all of them, typically 4 k to 10 k for
        the leading ones.

    Raises
    ------
    ValueError
        If a parameter is not allowed, the dense matrix would not fit, or `method` is
        "autodiff" and a part of the function has no second derivative: it is named.

    Warns
    -----
    UserWarning
        If rows did not converge, or `method` is "autodiff" and the margin is piecewise
        linear.

    Notes
    -----
    At a finite step the products of a piecewise-linear network are not linear in v, so
    they have no exact eigenvectors. The dense method is then a definition, the report's
    [1]_: the symmetrised matrix G_kl = v_k . (g(z + h v_l) - g(z)) / (h \|g\|), in a
    basis close to the projected pixel axes. The leading curvatures depend on the
    directions in which the search went, and do not converge to a small tolerance.

    References
    ----------
    .. [1] A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, S. Soatto, "Empirical study
       of the topology and geometry of deep networks", CVPR 2018.
    .. [2] K. Wu, H. Simon, "Thick-restart Lanczos method for large symmetric
       eigenvalue problems", SIAM J. Matrix Anal. Appl. 22(2), 2000.

    Examples
    --------
    A saddle: convex along the first axis, concave along the second.

    >>> import torch
    >>> from curvdetect.geometry import principal_curvatures
    >>> saddle = lambda x: -x[:, 2] - (2 * x[:, 0] ** 2 - 3 * x[:, 1] ** 2) / 2
    >>> z = torch.zeros(1, 3, dtype=torch.float64)
    >>> profile = principal_curvatures(saddle, z, method="autodiff")
    >>> profile.values
    tensor([[ 2., -3.]], dtype=torch.float64)
    >>> profile.directions[0].abs()
    tensor([[1., 0., 0.],
            [0., 1., 0.]], dtype=torch.float64)
    """
    check_tangent_space(z)
    d = math.prod(z.shape[1:])
    _check_leading(k, d - 1, which, tol, max_iter)
    check_choice("method", method, get_args(ProductMethod))
    check_precision(z)
    differences = Differences.at(
        margin, z, method=method, step=step, evaluated=evaluated, batch_size=batch_size
    )
    operator = Operator(differences, tangent=True)
    return _spectrum(operator, k, which, directions, tol, max_iter, generator)


def hessian_eigenvalues(
    function: Margin,
    x: Tensor,
    *,
    k: int | None = None,
    which: Which = "magnitude",
    method: ProductMethod = "gradient",
    step: float = 0.1,
    directions: bool = True,
    tol: float = 1e-4,
    max_iter: int = 40,
    generator: torch.Generator | None = None,
    batch_size: int | None = 256,
) -> Spectrum:
    r"""Eigenvalues and eigenvectors of the Hessian of a function of the input.

    For a loss, the loss curvature profile (equation (4)): positive where the loss is
    convex. Nothing is projected, divided or negated; for the curvature of a boundary
    see :func:`principal_curvatures`.

    Parameters
    ----------
    function : callable
        (n, *input_shape) -> (n,), each row for itself: a :class:`ClassLoss`, say, or
        a margin.
    x : Tensor of shape (n, *input_shape)
        Points.
    k, which, method, step, directions, tol, max_iter, generator, batch_size
        As in :func:`principal_curvatures`; a dense matrix has d rows.

    Returns
    -------
    Spectrum
        Eigenvalues of shape (n, k), k = d by default, in units of the function per
        squared input unit, from the most positive to the most negative; unit
        eigenvectors of shape (n, k, *input_shape); and a mask of the rows that
        converged. Cost: that of :func:`principal_curvatures`.

    Raises
    ------
    ValueError
        If a parameter is not allowed, the dense matrix would not fit, or `method` is
        "autodiff" and a part of the function has no second derivative: it is named.

    Warns
    -----
    UserWarning
        If rows did not converge, or `method` is "autodiff" and the function is
        piecewise linear.

    Notes
    -----
    The cross-entropy of a ReLU network is not piecewise linear, so "autodiff" does not
    warn; but it sees the curvature of the softmax alone (the Gauss-Newton part), and
    none of the network's. A finite step sees both.

    References
    ----------
    S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, "Robustness via curvature
    regularization, and vice versa", CVPR 2019.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import hessian_eigenvalues
    >>> saddle = lambda x: x[:, 0] ** 2 - 3 * x[:, 1] ** 2
    >>> x = torch.zeros(1, 2, dtype=torch.float64)
    >>> hessian_eigenvalues(saddle, x).values.round(decimals=6)
    tensor([[ 2., -6.]], dtype=torch.float64)
    """
    _check_leading(k, math.prod(x.shape[1:]), which, tol, max_iter)
    check_choice("method", method, get_args(ProductMethod))
    check_precision(x)
    differences = Differences.at(
        function, x, method=method, step=step, evaluated=None, batch_size=batch_size
    )
    operator = Operator(differences, tangent=False)
    return _spectrum(operator, k, which, directions, tol, max_iter, generator)


def _check_leading(
    k: int | None, dimension: int, which: str, tol: float, max_iter: int
) -> None:
    if k is not None:
        check_count("k", k, largest=dimension, alternative=" or None")
    check_choice("which", which, get_args(Which))
    check_positive("tol", tol)
    check_count("max_iter", max_iter)


def _spectrum(
    operator: Operator,
    k: int | None,
    which: Which,
    directions: bool,
    tol: float,
    max_iter: int,
    generator: torch.Generator | None,
) -> Spectrum:
    """Solve, warn of what is doubtful, and give the directions their shape."""
    if k is None:
        spectrum = dense_eigenpairs(operator, directions=directions)
    else:
        spectrum = leading_eigenpairs(
            operator, k=k, which=which, tol=tol, max_iter=max_iter, generator=generator
        )
        _warn_if_not_converged(spectrum, tol, operator.differences.method)
    operator.warn_if_wrongly_zero(spectrum.values)
    if not directions or spectrum.directions is None:
        return spectrum._replace(directions=None)
    shape = *spectrum.values.shape, *operator.differences.x.shape[1:]
    return spectrum._replace(directions=spectrum.directions.reshape(shape))


def _warn_if_not_converged(spectrum: Spectrum, tol: float, method: str) -> None:
    missed = int((~spectrum.converged & spectrum.values.isfinite().all(1)).sum())
    if not missed:
        return
    remedy = "raise max_iter or tol"
    if method == "gradient":
        remedy += (
            ", or lower step: finite differences are linear in v to the order of step "
            "only, and those of a piecewise-linear network at no step"
        )
    warn(
        f"{missed} of {len(spectrum.converged)} rows did not reach a residual of "
        f"tol={tol:g}: {remedy}"
    )
