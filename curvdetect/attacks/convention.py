"""How an attack is called: as torchattacks' are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

__all__ = ["Attack"]

#: torchattacks' calling convention: ``attack(images, labels) -> images``.
Attack: TypeAlias = Callable[[Tensor, Tensor], Tensor]
