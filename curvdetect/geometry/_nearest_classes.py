"""Which classes are near an image, by the first order of the logits there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvdetect.geometry._checks import check_labels
from curvdetect.geometry._derivatives import (
    margin_value,
    margin_value_and_gradient,
    per_row,
)
from curvdetect.geometry._margins import PairwiseMargin

__all__ = ["Start", "nearest_classes"]

#: At least so many classes are compared by first-order distance before the nearest
#: are chosen; with very many classes only those of the largest logits are.
_MIN_CANDIDATES = 10


@dataclass(frozen=True)
class Start:
    """Margins of k classes at n images, with their gradients, in n * k rows."""

    predicted: Tensor
    classes: Tensor
    value: Tensor
    gradient: Tensor

    def first_order_distance(self) -> Tensor:
        """Return F / |g|, (n, k)."""
        slope = self.gradient.flatten(1).norm(dim=1)
        return (self.value / slope).reshape(self.classes.shape)

    def first_order_step(self) -> Tensor:
        """Return the way to each linearised boundary; 0 where there is none."""
        factor = self.value / self.gradient.flatten(1).square().sum(1)
        factor = factor.nan_to_num(0, posinf=0, neginf=0)
        return -per_row(factor, self.gradient) * self.gradient


def nearest_classes(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    k: int,
    *,
    label: Tensor | None = None,
    batch_size: int | None,
) -> Start:
    """Choose the k classes whose boundaries are nearest to first order, or all.

    Boundaries are those of the class in `label`, by default the predicted one.
    """
    f = margin_value(logits, x, batch_size=batch_size)
    n, n_classes = f.shape
    if n_classes < 2:
        raise ValueError(f"logits must be of at least 2 classes; got {n_classes}")
    predicted = f.argmax(dim=1)
    if label is not None:
        predicted = check_labels("label", label, n, n_classes)
    n_candidates = min(n_classes - 1, max(2 * k, _MIN_CANDIDATES))
    others = f.scatter(1, predicted[:, None], -torch.inf)
    classes = others.topk(n_candidates, dim=1).indices
    margin = PairwiseMargin(
        logits, predicted.repeat_interleave(n_candidates), classes.flatten()
    )
    value, gradient = margin_value_and_gradient(
        margin, x.repeat_interleave(n_candidates, dim=0), batch_size=batch_size
    )
    start = Start(predicted, classes, value, gradient)
    # NaN (no gradient) sorts last.
    order = start.first_order_distance().argsort(dim=1, stable=True)[:, :k]
    rows = (order + torch.arange(n, device=x.device)[:, None] * n_candidates).flatten()
    return Start(predicted, classes.gather(1, order), value[rows], gradient[rows])
