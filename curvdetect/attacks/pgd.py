"""Projected gradient descent, by torchattacks."""

from __future__ import annotations

from curvdetect._base.extras import require
from curvdetect.attacks.convention import Attack
from curvdetect.network import TorchModel

__all__ = ["pgd"]


def pgd(model: TorchModel, *, eps: float, steps: int = 40) -> Attack:
    """Return torchattacks' PGD under an L-infinity budget, from a random start.

    Parameters
    ----------
    model : TorchModel
        The model under attack, with bounds (0, 1).
    eps : float
        Largest change of a value.
    steps : int, default=40
        Steps of length eps / 8 (never less than what reaches the budget).

    Returns
    -------
    callable
        ``attack(images, labels)``.

    Raises
    ------
    ImportError
        If torchattacks is missing (extra "attacks").
    ValueError
        If the model's bounds are not (0, 1), which torchattacks takes for granted.
    """
    torchattacks = require("torchattacks", extra="attacks")
    if model.bounds != (0.0, 1.0):
        raise ValueError(
            f"torchattacks needs a model with bounds (0.0, 1.0); got {model.bounds}"
        )
    alpha = eps * max(1 / 8, 2 / steps)
    attack: Attack = torchattacks.PGD(
        model.as_module(), eps=eps, alpha=alpha, steps=steps
    )
    return attack
