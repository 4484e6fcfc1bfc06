"""The average curvature of level sets, over their tangents."""

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

__all__ = ["mean_curvature"]


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
    evaluated: tuple[Tensor, Tensor] | None = None,
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
        - "autodiff": v^T H v by differentiating twice, attention as well. Right for
          smooth functions only: the Hessian of a ReLU network is zero almost
          everywhere, and this method warns when it meets that.
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
    evaluated : tuple of Tensor, optional
        F and its gradient at `z`, if they are known already. F counts as a constant
        unless it comes with its graph.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n,), or (2, n) with `return_error`
        Average curvatures, in 1 / input units, then their standard errors: 0 for
        "all", NaN for a single direction. NaN where the gradient vanishes. Cost: that
        of :func:`normal_curvature` times the number of directions, and a forward and
        a backward pass at `z`.

        With method="forward", differentiable if `z` requires a gradient: through the
        forward passes at and around `z`, for fixed g, tangents and errors. Otherwise
        nothing is recorded.

    Raises
    ------
    ValueError
        If a parameter is not allowed, an input has fewer than two values, or `method`
        is "autodiff" and a part of the margin has no second derivative: it is named.

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
    check_tangent_space(z)
    sampling = Sampling(n_directions, estimator, generator, directions)
    sampling.check(method)
    differences = Differences.at(
        margin, z, method=method, step=step, evaluated=evaluated, batch_size=batch_size
    )
    operator = Operator(differences, tangent=True)
    kappa = trace_and_error(operator, sampling, mean=True)
    return kappa if return_error else kappa[0]
