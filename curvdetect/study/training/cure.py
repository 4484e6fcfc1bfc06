"""Curvature regularisation: a penalty, and the loss with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from curvdetect._base.checks import check_positive
from curvdetect._base.rows import per_row
from curvdetect._base.second_derivatives import first_gradient, twice_differentiable

__all__ = ["CURE", "cure_penalty"]


def cure_penalty(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    step: float,
    loss: Callable[..., Tensor] = functional.cross_entropy,
) -> Tensor:
    r"""Compute the curvature penalty of CURE for a batch, differentiably.

    \|grad l(x + h z) - grad l(x)\|^2 for each image, with gradients with respect to the
    input and z the unit vector along the sign of grad l(x): how much the loss curves
    along the direction in which an attack would go.

    Parameters
    ----------
    module : torch.nn.Module
        The network. What it draws at random in training mode (dropout) differs between
        the two gradients and adds to the penalty.
    x : Tensor of shape (n, *input_shape)
        Images.
    y : Tensor of shape (n,), int64
        Labels.
    step : float
        h, an L2 length in input units; about 1 in the paper.
    loss : callable, default=torch.nn.functional.cross_entropy
        (logits, labels) -> (n,), called with ``reduction="none"``.

    Returns
    -------
    Tensor of shape (n,)
        Penalties, in (loss per input unit) squared. Their mean, times a strength, is
        added to the loss of a training loop. Cost: two forward and backward passes,
        both of which are differentiated again.

    Raises
    ------
    ValueError
        If `step` is not a positive number, or a part of the network has no second
        derivative.

    References
    ----------
    S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, "Robustness via curvature
    regularization, and vice versa", CVPR 2019, equation (8).

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.training import cure_penalty
    >>> module = torch.nn.Linear(4, 3)
    >>> x, y = torch.rand(8, 4), torch.randint(3, (8,))
    >>> loss = torch.nn.functional.cross_entropy(module(x), y)
    >>> loss = loss + 4 * cure_penalty(module, x, y, step=1.0).mean()
    >>> loss.backward()
    """
    check_positive("step", step)

    def gradient(points: Tensor) -> Tensor:
        leaf = points.detach().requires_grad_()
        with torch.enable_grad():
            with twice_differentiable():
                total = loss(module(leaf), y, reduction="none").sum()
            return first_gradient(total, leaf)

    at_x = gradient(x)
    z = at_x.detach().sign()
    length = z.flatten(1).norm(dim=1).clamp(min=torch.finfo(z.dtype).tiny)
    z = z / per_row(length, z)
    return (gradient(x + step * z) - at_x).flatten(1).square().sum(1)


class CURE:
    """Cross-entropy and the curvature penalty, with a step that grows.

    Parameters
    ----------
    strength : float, default=0.03
        Of the penalty.
    step : float, default=1.5
        h in the end, an L2 length in input units.
    warm_up : float, default=0.5
        Share of the training during which h grows linearly from 0.

    References
    ----------
    S.-M. Moosavi-Dezfooli, A. Fawzi, J. Uesato, P. Frossard, "Robustness via curvature
    regularization, and vice versa", CVPR 2019.

    Examples
    --------
    >>> from curvdetect.study.training import CURE
    >>> CURE(strength=2.0)
    CURE(strength=2.0, step=1.5, warm_up=0.5)
    """

    def __init__(
        self, *, strength: float = 0.03, step: float = 1.5, warm_up: float = 0.5
    ) -> None:
        check_positive("strength", strength)
        check_positive("step", step)
        if not 0 <= warm_up <= 1:
            raise ValueError(f"warm_up must be from 0 to 1; got {warm_up!r}")
        self.strength = strength
        self.step = step
        self.warm_up = warm_up

    def __repr__(self) -> str:
        return (
            f"CURE(strength={self.strength!r}, step={self.step!r}, "
            f"warm_up={self.warm_up!r})"
        )

    def __call__(
        self, module: nn.Module, x: Tensor, y: Tensor, progress: float
    ) -> Tensor:
        """Return the mean regularised loss of a batch.

        Parameters
        ----------
        module : torch.nn.Module
            The network.
        x, y : Tensor of shape (n, *input_shape) and (n,)
            Images and labels.
        progress : float
            Share of the training that is done: sets h.

        Returns
        -------
        Tensor
            A number.
        """
        loss = functional.cross_entropy(module(x), y)
        grown = 1.0 if self.warm_up == 0 else min(1.0, progress / self.warm_up)
        if grown == 0:
            return loss
        penalty = cure_penalty(module, x, y, step=grown * self.step)
        return loss + self.strength * penalty.mean()
