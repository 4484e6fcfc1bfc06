"""Values and gradients, a batch of rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect._base.rows import batches
from curvdetect.geometry._margins import Margin, take_rows

__all__ = [
    "check_differentiable",
    "margin_gradient",
    "margin_value",
    "margin_value_and_gradient",
    "recorded_value",
    "recorded_value_and_gradient",
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
    return recorded_value(margin, x, batch_size)


def recorded_value(margin: Margin, x: Tensor, batch_size: int | None) -> Tensor:
    """Evaluate a margin; gradients are recorded if that is on."""
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
    return _value_and_gradient(margin, x, batch_size, recorded=False)


def recorded_value_and_gradient(
    margin: Margin, x: Tensor, *, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """Evaluate a margin, with its graph, and its gradient, a constant.

    `x` requires a gradient. Cost: as without the graph.
    """
    return _value_and_gradient(margin, x, batch_size, recorded=True)


def _value_and_gradient(
    margin: Margin, x: Tensor, batch_size: int | None, *, recorded: bool
) -> tuple[Tensor, Tensor]:
    values, gradients = [], []
    for rows in batches(len(x), batch_size, x.device):
        with torch.enable_grad():
            part = x[rows] if recorded else x[rows].detach().requires_grad_()
            value = take_rows(margin, rows)(part)
            check_differentiable(value)
            (gradient,) = torch.autograd.grad(value.sum(), part, retain_graph=recorded)
        values.append(value if recorded else value.detach())
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
