"""Attacks of the Adversarial Robustness Toolbox."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvdetect.attacks.convention import Attack

__all__ = ["from_art"]


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
