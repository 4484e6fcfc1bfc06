"""Many images, a few at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["attack_in_batches", "in_batches"]


def in_batches(
    function: Callable[[Tensor], Tensor], X: np.ndarray | Tensor, size: int
) -> np.ndarray:
    """Apply a function of tensors to images."""
    parts = [function(x) for x in torch.as_tensor(X).split(size)]
    return np.concatenate([np.asarray(part.detach()) for part in parts])


def attack_in_batches(
    attack: Callable[[Tensor, Tensor], Tensor], x: Tensor, label: Tensor, size: int
) -> Tensor:
    """Attack images, from the same seed: PGD starts at random."""
    torch.manual_seed(0)
    pairs = zip(x.split(size), label.split(size), strict=True)
    return torch.cat([attack(*pair).detach() for pair in pairs])
