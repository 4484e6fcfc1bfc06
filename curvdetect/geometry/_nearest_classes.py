"""Which classes are near an image, by the first order of the logits there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvdetect._base.checks import check_labels
from curvdetect._base.rows import batches, per_row
from curvdetect.geometry._derivatives import check_differentiable

__all__ = ["Start", "candidate_classes", "nearest_classes"]

#: At least so many classes are compared by first-order distance before the nearest
#: are chosen; with very many classes only those of the largest logits are.
_MIN_CANDIDATES = 10


@dataclass(frozen=True)
class Start:
    """Logits at n images, and k of their margins with gradients, in n * k rows."""

    logits: Tensor
    predicted: Tensor
    classes: Tensor
    value: Tensor
    gradient: Tensor

    def first_order_distance(self) -> Tensor:
        """Return F / |g|, (n, k)."""
        return (self.value / self.slope()).reshape(self.classes.shape)

    def slope(self) -> Tensor:
        """Return |g|, (n * k,)."""
        return self.gradient.flatten(1).norm(dim=1)

    def first_order_step(self) -> Tensor:
        """Return the way to each linearised boundary; 0 where there is none."""
        factor = self.value / self.gradient.flatten(1).square().sum(1)
        factor = factor.nan_to_num(0, posinf=0, neginf=0)
        return -per_row(factor, self.gradient) * self.gradient

    def take(self, columns: Tensor) -> Start:
        """Keep some of the classes of each image: their positions, (n, fewer)."""
        n, k = self.classes.shape
        of_image = k * torch.arange(n, device=columns.device)
        rows = (columns + of_image[:, None]).flatten()
        return Start(
            self.logits,
            self.predicted,
            self.classes.gather(1, columns),
            self.value[rows],
            self.gradient[rows],
        )


def nearest_classes(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    k: int,
    *,
    label: Tensor | None = None,
    batch_size: int | None,
) -> Start:
    """Choose the k classes whose boundaries are nearest to first order, or all.

    Boundaries are those of the class in `label`, by default the predicted one. Compared
    are those of twice k logits, at least ten. Cost: that of :func:`candidate_classes`.
    """
    start = candidate_classes(
        logits, x, max(2 * k, _MIN_CANDIDATES), label=label, batch_size=batch_size
    )
    n, n_candidates = start.classes.shape
    nearest = torch.arange(min(k, n_candidates), device=x.device)
    return start.take(nearest.expand(n, -1))


def candidate_classes(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    n_candidates: int,
    *,
    label: Tensor | None = None,
    batch_size: int | None,
) -> Start:
    """Return the classes of the largest logits, or all there are.

    The one whose boundary is nearest to first order comes first. Cost: one forward
    pass, and a backward pass for each class.
    """
    parts = [
        _candidates(logits, x, rows, n_candidates, label)
        for rows in batches(len(x), batch_size, x.device)
    ]
    start = Start(*(torch.cat(part) for part in zip(*parts, strict=True)))
    # NaN (no gradient) sorts last.
    return start.take(start.first_order_distance().argsort(dim=1, stable=True))


def _candidates(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    rows: Tensor,
    n_candidates: int,
    label: Tensor | None,
) -> tuple[Tensor, ...]:
    """Return what makes a Start, of the classes of the largest logits."""
    with torch.enable_grad():
        leaf = x[rows].detach().requires_grad_()
        f = logits(leaf)
        check_differentiable(f)
        n_classes = f.shape[1]
        if n_classes < 2:
            raise ValueError(f"logits must be of at least 2 classes; got {n_classes}")
        predicted = f.detach().argmax(dim=1)
        if label is not None:
            predicted = check_labels("label", label, len(x), n_classes)[rows]
        others = f.detach().scatter(1, predicted[:, None], -torch.inf)
        classes = others.topk(min(n_candidates, n_classes - 1), dim=1).indices
        margins = f.gather(1, predicted[:, None]) - f.gather(1, classes)
        # One forward pass serves all. A backward pass for each class, of all images at
        # once: batched gradients would need a vmap rule for every layer of a network.
        gradients = [
            torch.autograd.grad(of_class.sum(), leaf, retain_graph=True)[0]
            for of_class in margins.T
        ]
    gradient = torch.stack(gradients, dim=1).flatten(0, 1)
    return f.detach(), predicted, classes, margins.detach().flatten(), gradient
