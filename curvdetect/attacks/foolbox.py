"""Attacks of foolbox."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvdetect._base.extras import require
from curvdetect.attacks.convention import Attack
from curvdetect.network import TorchModel

__all__ = ["from_foolbox"]


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
