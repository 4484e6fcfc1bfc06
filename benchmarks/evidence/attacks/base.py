"""What the benchmark asks of an attack, and which kinds there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["KINDS", "LEARNED_AS", "Attack"]

#: What is learned from an attack tells much of the others of its kind.
KINDS = (
    "gradient steps",
    "minimal norm",
    "few pixels",
    "moved",
    "black box",
    "transferred",
)
#: Without which kind a detector has to be made to know nothing of one like it.
LEARNED_AS = {kind: kind for kind in KINDS} | {"transferred": "gradient steps"}


@dataclass(frozen=True)
class Attack:
    """An attack at one budget.

    `name` has the budget in it, as "PGD 16/255". `run(images, labels)` is given images
    (n, C, H, W) in [0, 1] and true labels, and returns images within [0, 1] of the same
    shape. `n_images` lessens the images of a slow one, and from `learned_from` False
    nobody learns: it is slow, or its like is learned from.
    """

    name: str
    kind: str
    run: Callable[[Tensor, Tensor], Tensor]
    n_images: int | None = None
    learned_from: bool = True
