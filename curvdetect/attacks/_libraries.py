"""Attacks of other libraries, as :func:`make_adversarial_set` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from curvdetect._base.extras import require
from curvdetect.network import TorchModel

__all__ = ["Attack", "from_art", "from_foolbox", "pgd"]

#: torchattacks' calling convention: ``attack(images, labels) -> images``.
Attack: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def from_foolbox(
    model: TorchModel, attack: Any, *, epsilon: float | None = None
) -> Attack:
    """Make an attack of foolbox one that :func:`make_adversarial_set` takes.

    Parameters
    ----------
    model : TorchModel
        The model under attack; foolbox sees it with its bounds.
    attack : foolbox.attacks.Attack
        An attack.
    epsilon : float, optional
        Its budget; None for an attack that minimises the perturbation, which with a
        budget is cut to it.

    Returns
    -------
    callable
        ``attack(images, labels)``.

    Raises
    ------
    ImportError
        If foolbox is missing (extra "foolbox").
    ValueError
        If the model has no bounds, which foolbox needs.

    Examples
    --------
    >>> import foolbox
    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.attacks import from_foolbox
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> attack = from_foolbox(model, foolbox.attacks.L2DeepFoolAttack())
    >>> attack(torch.tensor([[0.7, 0.3, 0.1]]), torch.tensor([0])).argmax(dim=1)
    tensor([1])
    """
    foolbox = require("foolbox", extra="foolbox")
    if model.bounds is None:
        raise ValueError("foolbox needs a model with bounds (low, high); got None")

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(
            model.as_module(), bounds=model.bounds, device=images.device
        )
        try:
            _, clipped, _ = attack(wrapped, images, labels, epsilons=epsilon)
        except NotImplementedError as error:
            raise ValueError(
                f"epsilon must be a budget for {type(attack).__name__}; got {epsilon!r}"
            ) from error
        return torch.as_tensor(clipped)

    return attacked


def from_art(attack: Any) -> Attack:
    """Make an attack of the Adversarial Robustness Toolbox one that we take.

    Parameters
    ----------
    attack : art.attacks.EvasionAttack
        An untargeted attack, on an ART classifier of the same network. It gets the
        true labels, so that it does not have to guess them.

    Returns
    -------
    callable
        ``attack(images, labels)``, for :func:`make_adversarial_set`.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from curvdetect.attacks import from_art
    >>> class Brighter:
    ...     def generate(self, x, y):
    ...         return np.clip(x + 0.1, 0, 1)
    >>> from_art(Brighter())(torch.zeros(1, 2), torch.tensor([0]))
    tensor([[0.1000, 0.1000]])
    """

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        result = attack.generate(x=images.cpu().numpy(), y=labels.cpu().numpy())
        return torch.from_numpy(np.asarray(result, dtype=np.float32)).to(images)

    return attacked


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
