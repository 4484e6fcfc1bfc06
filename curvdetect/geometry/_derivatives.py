"""Values, gradients and second directional derivatives, a batch of rows at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from curvdetect._base.rows import batches, dot
from curvdetect.geometry._margins import Margin, take_rows

__all__ = [
    "check_differentiable",
    "hessian_product",
    "margin_gradient",
    "margin_value",
    "margin_value_and_gradient",
    "mean_decrease",
    "second_derivative",
    "warn_if_piecewise_linear",
]


@torch.no_grad()
def margin_value(margin: Margin, x: Tensor, *, batch_size: int | None = None) -> Tensor:
    """Evaluate a margin, or any function of rows, without recording gradients.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,); or logits, say, with more axes behind the first.
    x : Tensor of shape (n, *input_shape)
        Points.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n,), or what `margin` returns
        F(x). Cost: one forward pass a row.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import margin_value
    >>> margin_value(lambda x: 2.0 - x.norm(dim=1), torch.tensor([[0.6, 0.8]]))
    tensor([1.])
    """
    if batch_size is None or len(x) <= batch_size:
        return margin(x)
    return torch.cat(
        [
            take_rows(margin, rows)(x[rows])
            for rows in batches(len(x), batch_size, x.device)
        ]
    )


def margin_value_and_gradient(
    margin: Margin, x: Tensor, *, batch_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Evaluate a margin and its gradient.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    value : Tensor of shape (n,)
        F(x).
    gradient : Tensor of shape (n, *input_shape)
        g = dF/dx. Cost: one forward and one backward pass a row.

    Raises
    ------
    ValueError
        If the margin does not depend differentiably on its input.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import margin_value_and_gradient
    >>> margin_value_and_gradient(lambda x: (x**2).sum(1), torch.tensor([[1.0, 2.0]]))
    (tensor([5.]), tensor([[2., 4.]]))
    """
    values, gradients = [], []
    for rows in batches(len(x), batch_size, x.device):
        with torch.enable_grad():
            leaf = x[rows].detach().requires_grad_()
            value = take_rows(margin, rows)(leaf)
            check_differentiable(value)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        values.append(value.detach())
        gradients.append(gradient)
    return torch.cat(values), torch.cat(gradients)


def check_differentiable(value: Tensor) -> None:
    """Refuse what a margin returned if no gradient can be taken of it."""
    if not value.requires_grad:
        raise ValueError(
            "margin must depend differentiably on its input; expected a result with a "
            "gradient, got one without (is the network called under torch.no_grad, or "
            "does it leave torch, or round its input?)"
        )


def margin_gradient(
    margin: Margin, x: Tensor, *, batch_size: int | None = None
) -> Tensor:
    """Evaluate the gradient of a margin.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    batch_size : int, optional
        Rows given to `margin` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n, *input_shape)
        g = dF/dx. Cost: one forward and one backward pass a row.

    Raises
    ------
    ValueError
        If the margin does not depend differentiably on its input.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import margin_gradient
    >>> margin_gradient(lambda x: (x**2).sum(1), torch.tensor([[1.0, 2.0]]))
    tensor([[2., 4.]])
    """
    return margin_value_and_gradient(margin, x, batch_size=batch_size)[1]


def second_derivative(
    margin: Margin,
    z: Tensor,
    v: Tensor,
    *,
    method: str,
    step: float,
    value: Tensor,
    gradient: Tensor,
) -> Tensor:
    """Return v^T H v of every row, H the Hessian of the margin at scale `step`.

    `z`, `v` and `gradient` have shape (n, *input_shape), `value` has (n,).
    `value` and `gradient` are those at `z`: callers know them already.
    """
    if method == "forward":
        ahead = margin_value(margin, z + step * v)
        behind = margin_value(margin, z - step * v)
        return ((ahead - value) + (behind - value)) / step**2
    product = hessian_product(margin, z, v, method=method, step=step, gradient=gradient)
    return dot(product, v)


def hessian_product(
    margin: Margin,
    z: Tensor,
    v: Tensor,
    *,
    method: str,
    step: float,
    gradient: Tensor,
) -> Tensor:
    """Return H v of every row: a difference of gradients, or exact ("autodiff").

    `z`, `v` and `gradient` (that at `z`) have shape (n, *input_shape).
    """
    if method == "gradient":
        return (margin_gradient(margin, z + step * v) - gradient) / step
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(margin(leaf).sum(), leaf, create_graph=True)
        if not gradient.requires_grad:  # the margin is affine: nothing left to differ
            return torch.zeros_like(z)
        (product,) = torch.autograd.grad(
            dot(gradient, v).sum(), leaf, allow_unused=True, materialize_grads=True
        )
    return product


@torch.no_grad()
def mean_decrease(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    directions: Tensor,
    *,
    step: float,
    start: Tensor | None = None,
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
    directions : Tensor of shape (n_directions, *input_shape)
        Unit vectors u; -u is used too.
    step : float
        h, an L2 length in input units.
    start : Tensor, optional
        f(x), if it is known already.
    batch_size : int, optional
        Rows given to `function` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n, n_outputs)
        In the units of f. Cost: 2 n_directions + 1 forward passes a row.

    Examples
    --------
    For f = -\|x\|^2 the decrease is h^2, everywhere and in every direction.

    >>> import torch
    >>> from curvdetect.geometry import mean_decrease
    >>> f = lambda x: -(x**2).sum(1, keepdim=True)
    >>> mean_decrease(f, torch.zeros(1, 2), torch.eye(2), step=0.5)
    tensor([[0.2500]])
    """
    centre = start
    if centre is None:
        centre = margin_value(function, x, batch_size=batch_size)
    total = torch.zeros_like(centre)
    n_directions = len(directions)
    for pairs in batches(len(x) * n_directions, batch_size, x.device):
        rows = pairs // n_directions
        shift = step * directions[pairs % n_directions]
        for probe in (x[rows] + shift, x[rows] - shift):
            total.index_add_(0, rows, centre[rows] - function(probe))
    return total / (2 * n_directions)


def warn_if_piecewise_linear(
    margin: Margin,
    z: Tensor,
    v: Tensor,
    *,
    step: float,
    start: tuple[Tensor, Tensor],
    batch_size: int | None,
    stacklevel: int,
) -> None:
    """Warn if the margin is not flat along the unit vectors `v`, one a row of `z`.

    To be called where every exact second derivative is zero. An affine margin has
    zero derivatives too, and rightly so: what tells the two apart is a second
    difference over a finite step.
    """
    value, gradient = start
    second_difference = -2 * value
    for probe in (z + step * v, z - step * v):
        second_difference += margin_value(margin, probe, batch_size=batch_size)
    scale = 1e-4 * step * gradient.flatten(1).norm(dim=1)
    if bool((second_difference.abs() > scale).any()):
        warnings.warn(
            "every exact second derivative is zero, but the function is not flat at "
            f"step={step:g}: it is piecewise linear (ReLU, max-pooling). Use "
            'method="forward" or "gradient", which measure curvature at a finite step.',
            UserWarning,
            stacklevel=stacklevel + 1,
        )
