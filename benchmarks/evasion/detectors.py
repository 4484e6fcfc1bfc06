"""Detectors of curvature with a gradient, and what might be harder to evade."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.batches import in_batches
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.evasion import SignalScore
from curvdetect.signals import FirstOrder

__all__ = ["Detector", "detectors", "learned"]

SCALES = (1.0, 2.0, 4.0)
#: In log-odds: how far below the threshold of the learned model to aim.
LEARNED_MARGINS = (0.0, 3.0)


@dataclass(frozen=True)
class Detector:
    """Scores with a gradient, and their thresholds: flagged if any is above its own.

    `of_attacker` is what the attacker differentiates: the same scores, but where they
    are drawn at random or have no gradient. Then it may help to aim below the
    thresholds, by one of the `margins`.
    """

    scores: Callable[[Tensor], Tensor]
    of_attacker: Callable[[Tensor], Tensor]
    thresholds: dict[float, np.ndarray]
    margins: tuple[float, ...] = (0.0,)

    def excess(self, x: Tensor, fpr: float) -> np.ndarray:
        """Return how far the largest score is above its threshold."""
        values = without_gradients(self.scores, x)
        return (values - self.thresholds[fpr]).max(axis=1)


def detectors(model: TorchModel, clean: Tensor) -> dict[str, Callable[[], Detector]]:
    """Return what makes the default, and what might be harder to evade."""
    one = CurvatureFeaturizer(model, random_state=0).fit(clean)
    scale = one.step_
    three = CurvatureFeaturizer(
        model, random_state=0, step=(scale / 2, scale, 2 * scale)
    ).fit(clean)
    default, scales = SignalScore(one), SignalScore(three)
    # An attacker who does not know the directions averages over many others.
    secret = CurvatureFeaturizer(model, random_state=1, step=scale).fit(clean)
    guessed = CurvatureFeaturizer(
        model, random_state=2, step=scale, n_directions=32
    ).fit(clean)
    laplacian = score_of(model, clean, ("laplacian",), laplacian_step=SCALES)
    distance = score_of(model, clean, [FirstOrder(n_nearest=1)])

    def with_laplacian(x: Tensor) -> Tensor:
        return torch.cat([scales(x), laplacian(x)], dim=1)

    def with_distance(x: Tensor) -> Tensor:
        return torch.cat([scales(x), -distance(x)], dim=1)

    ways = {
        "default": (default, default),
        "secret directions": (SignalScore(secret), SignalScore(guessed)),
        "three scales": (scales, scales),
        "three scales and laplacian": (with_laplacian, with_laplacian),
        "three scales and distance": (with_distance, with_distance),
    }

    def made(scores: Callable, of_attacker: Callable) -> Detector:
        values = without_gradients(scores, clean)
        limits = {fpr: thresholds(values, fpr) for fpr in (0.01, 0.05)}
        return Detector(scores, of_attacker, limits)

    nothing = Detector(no_score, no_score, {0.05: np.array([np.inf], np.float32)})
    makers = {name: partial(made, *way) for name, way in ways.items()}
    return {"no detector": lambda: nothing, **makers}


def score_of(
    model: TorchModel, clean: Tensor, features: Sequence, **settings
) -> SignalScore:
    """Return other features with a gradient, in the same directions."""
    featurizer = CurvatureFeaturizer(
        model, features=features, random_state=0, **settings
    )
    return SignalScore(featurizer.fit(clean))


def learned(network: str, cache: str, data_dir: str | None) -> Detector:
    """Return 0.1's model of features, which learned from attacks."""
    # It needs extras that nothing else here does.
    from benchmarks.evasion.learned_model import learned_model

    found = learned_model(network, cache, data_dir)
    return Detector(*found, margins=LEARNED_MARGINS)


def no_score(x: Tensor) -> Tensor:
    """Score nothing: the control, what the attacks need where nothing is flagged."""
    return 0 * x.flatten(1).sum(1, keepdim=True)


def thresholds(values: np.ndarray, fpr: float) -> np.ndarray:
    """Return a threshold a score, all at one level, that together flag `fpr`."""
    for level in np.linspace(fpr, fpr / (2 * values.shape[1]), 50):
        limits = np.quantile(values, 1 - level, axis=0, method="higher")
        if (values > limits).any(axis=1).mean() <= fpr:
            break
    return limits.astype(np.float32)


def without_gradients(scores: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Score images, without a graph of all their probes."""
    with torch.no_grad():
        return in_batches(scores, x, 64)
