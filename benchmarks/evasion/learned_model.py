"""The learned model, and what an attacker who knows it differentiates instead.

Its trees have no gradient. So the attacker has a smooth network learn the model's own
scores from features that do: the largest curvatures at three scales, the largest mean
decreases of a margin at six, and the distance to the nearest boundary to first order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.common.batches import attack_in_batches, in_batches
from benchmarks.common.networks import NETWORKS, development_images, smallest_eps
from benchmarks.evasion.feature_model import LAPLACIAN_STEPS, Features, fitted
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.attacks import MinimalNormAttack, pgd, same_norm_noise
from curvdetect.evasion import NeighbourhoodMarginAttack, SignalScore
from curvdetect.signals import FirstOrder

__all__ = ["learned_model"]

#: The attacker's own development images, behind those that the model and its threshold
#: have seen, and how many of them, the last, the attacker's network is tried on.
OWN, N_TRIED = slice(2000, 2700), 200
#: Scores are log-odds; beyond this they are all the same to the attacker.
LARGEST = 8.0
N_LARGEST = 3


class Differentiable:
    """Features of images that a gradient goes through."""

    def __init__(self, features: Features) -> None:
        known = features.featurizer
        nothing = np.zeros((2, *known.input_shape_), np.float32)

        def score(n_largest: int = 1, **settings) -> SignalScore:
            featurizer = CurvatureFeaturizer(
                known.model, random_state=known.random_state, **settings
            ).fit(nothing)
            np.testing.assert_array_equal(featurizer.directions_, known.directions_)
            return SignalScore(featurizer, n_largest=n_largest)

        self.parts = [
            score(step=known.step, n_largest=N_LARGEST),
            score(features=["laplacian"], laplacian_step=LAPLACIAN_STEPS),
            score(features=[FirstOrder(n_nearest=1)]),
        ]

    def __call__(self, x: Tensor) -> Tensor:
        columns = torch.cat([part(x) for part in self.parts], dim=1)
        # Where there is no boundary: no curvature.
        return columns.where(columns.abs() < 1e3, 0)

    def of_all(self, X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return in_batches(self, X, 64)


class Surrogate:
    """A smooth network that was taught the scores of a detector.

    Attributes
    ----------
    r2 : float
        Of its scores on images that it did not learn from.
    """

    def __init__(self, features: Differentiable) -> None:
        self.features = features

    def fit(
        self, sets: list[np.ndarray], score: Callable[[np.ndarray], np.ndarray]
    ) -> Surrogate:
        """Learn scores of some sets, each made from the same images in that order."""
        scale = StandardScaler()
        network = MLPRegressor(
            hidden_layer_sizes=(64, 64), early_stopping=True, random_state=0
        )
        pipeline = make_pipeline(scale, network)
        tables = [
            (self.features.of_all(X), score(X).clip(-LARGEST, LARGEST)) for X in sets
        ]
        pipeline.fit(*_joined([(F[:-N_TRIED], y[:-N_TRIED]) for F, y in tables]))
        self.r2 = pipeline.score(
            *_joined([(F[-N_TRIED:], y[-N_TRIED:]) for F, y in tables])
        )
        self.mean, self.scale = (
            torch.tensor(v, dtype=torch.float32) for v in (scale.mean_, scale.scale_)
        )
        self.layers = [
            tuple(torch.tensor(v, dtype=torch.float32) for v in layer)
            for layer in zip(network.coefs_, network.intercepts_, strict=True)
        ]
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Return scores, (n, 1), with a gradient."""
        out = (self.features(x) - self.mean) / self.scale
        for weights, bias in self.layers[:-1]:
            out = (out @ weights + bias).relu()
        weights, bias = self.layers[-1]
        return out @ weights + bias


def learned_model(
    network: str, cache: str, data_dir: str | None
) -> tuple[Callable, Surrogate, dict[float, np.ndarray]]:
    """Return the learned model's scores, the attacker's, and thresholds."""
    detector, found = fitted(network, cache, data_dir)
    features = detector.features
    if max(map(abs, found.values())) >= LARGEST:
        raise ValueError(f"the attacker's network does not tell scores near {found}")
    with features.not_looked_up():
        sets = attackers_sets(features.model, network, data_dir)
        surrogate = Surrogate(Differentiable(features)).fit(sets, detector.score)
    print(f"surrogate: R2 {surrogate.r2:.2f}, thresholds {found}", flush=True)

    def scores(x: Tensor) -> Tensor:
        with features.not_looked_up():  # no attack asks for the same image twice
            return torch.from_numpy(detector.score(x.numpy()))[:, None]

    limits = {fpr: np.array([limit], np.float32) for fpr, limit in found.items()}
    return scores, surrogate, limits


def attackers_sets(
    model: TorchModel, network: str, data_dir: str | None
) -> list[np.ndarray]:
    """Return the attacker's images: as they are, attacked in some ways, and noisy."""
    eps = smallest_eps(network)
    X, y = development_images(network, data_dir)
    X, y = X[OWN], y[OWN]
    x, label = torch.from_numpy(X), torch.from_numpy(y)
    attacks = [
        pgd(model, eps=eps),
        pgd(model, eps=2 * eps),
        MinimalNormAttack(model, factor=1.2),
        MinimalNormAttack(model, factor=1.6),
        NeighbourhoodMarginAttack(
            model, eps=eps, radius=NETWORKS[network].radius, steps=10
        ),
    ]
    attacked = [attack_in_batches(each, x, label, 100).numpy() for each in attacks]
    norms = np.linalg.norm((attacked[0] - X).reshape(len(X), -1), axis=1)
    return [X, same_norm_noise(X, norms, random_state=2), *attacked]


def _joined(tables: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(columns) for columns in zip(*tables, strict=True))
