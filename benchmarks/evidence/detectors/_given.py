"""What passes from layer to layer, in any network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.evidence.detectors._layers import calls
from curvdetect import TorchModel

__all__ = ["GivenToLayers", "channel_means"]

#: Layers that hand on the values that they are given, in another order or shape.
REORDERING = (
    "Dropout",
    "Flatten",
    "Identity",
    "OnnxFlatten",
    "OnnxReshape",
    "OnnxTranspose",
)


class GivenToLayers:
    """Catch what layers are given, and the logits.

    A layer is a module without children. What it is given, rather than what it gives,
    includes what functions between the layers did, such as the sums of a residual
    network. (`_layers.stages` are for packages, which ask for modules.) Nothing is
    caught before the first layer with weights, and nothing twice that is only put into
    another shape.

    `most` keeps that many at most, evenly spaced, the first and the logits included;
    `maps` keeps those of shape (n, C, H, W) alone, with H and W above 1.
    """

    def __init__(
        self, model: TorchModel, *, most: int | None = None, maps: bool = False
    ) -> None:
        self.model = model
        self.layers = [m for m in model.module.modules() if not list(m.children())]
        blank = torch.full((3, *(model.input_shape or ())), 0.5)
        with model.evaluating(), torch.no_grad():
            modules, given = zip(*self._caught(blank), strict=True)
        weighted = [any(True for _ in m.parameters()) for m in modules]
        start = weighted.index(True) + 1 if any(weighted) else 0
        found = [
            i
            for i in range(start, len(given))
            if _is_kept(modules[i], given[i], maps) and len(given[i]) == len(blank)
        ]
        if most is not None and len(found) > most:
            spaced = np.linspace(0, len(found) - 1, most).round().astype(int)
            found = [found[i] for i in spaced]
        self.kept = found

    def _caught(self, x: Tensor) -> list[tuple[nn.Module, Tensor]]:
        """Return layers, each with the first tensor that it is given; logits last."""
        found, logits = calls(self.model.logits, self.layers, x)
        given = [
            (call.module, tensor)
            for call in found
            for tensor in [g for g in call.given if isinstance(g, Tensor)][:1]
        ]
        return [*given, (nn.Softmax(1), logits)]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return what passes, from the image to the logits, a row an image.

        Within `model.evaluating()`; differentiable.
        """
        given = self._caught(x)
        return [given[i][1] for i in self.kept]

    def penultimate(self, x: Tensor) -> Tensor:
        """Return what the logits are made of, flat: a layer before biases are added.

        It is the last that has not as many columns as there are classes.
        """
        flat = [given.flatten(1) for given in self(x)]
        return next(g for g in reversed(flat) if g.shape[1] != flat[-1].shape[1])


def _is_kept(module: nn.Module, given: Tensor, maps: bool) -> bool:
    if type(module).__name__ in REORDERING or not given.is_floating_point():
        return False
    return not maps or (given.ndim == 4 and min(given.shape[2:]) > 1)


def channel_means(given: Tensor) -> Tensor:
    """Average over places: (n, C, H, W) or, of tokens, (n, T, C) becomes (n, C)."""
    if given.ndim == 4:
        return given.mean((2, 3))
    return given.mean(1) if given.ndim == 3 else given.flatten(1)
