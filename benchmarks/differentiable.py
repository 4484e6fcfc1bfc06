"""Scores of images with a gradient, beside the package's CurvatureScore."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect.geometry._nearest_classes import nearest_classes
from curvdetect.network import TorchModel


class Laplacian:
    """The largest mean decrease of a margin around an image, at each scale.

    As the featurizer's "laplacian", but over all boundaries, and differentiable.
    """

    def __init__(
        self, model: TorchModel, directions: Tensor, scales: tuple[float, ...]
    ) -> None:
        self.model, self.directions, self.scales = model, directions, scales

    def __call__(self, x: Tensor) -> Tensor:
        with self.model.evaluating():
            centre = self.model.logits(x)
            own = centre.argmax(1, keepdim=True)
            columns = []
            for scale in self.scales:
                shifts = scale * torch.cat([self.directions, -self.directions])
                around = self.model.logits((x[:, None] + shifts).flatten(0, 1))
                decrease = centre - around.unflatten(0, (len(x), -1)).mean(1)
                margins = decrease.gather(1, own) - decrease
                columns.append(margins.scatter(1, own, -torch.inf).max(1).values)
        return torch.stack(columns, dim=1)


class Nearness:
    """Minus the first-order distance to the nearest boundary."""

    def __init__(self, model: TorchModel) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        with self.model.evaluating():
            start = nearest_classes(self.model.logits, x.detach(), 1, batch_size=128)
            slope = start.gradient.flatten(1).norm(dim=1)
            margin = self.model.margin(start.predicted, start.classes[:, 0])
            return -(margin(x) / slope)[:, None]
