"""A classifier of scikit-learn on many features: 0.1's way to learn from attacks.

The learned guard took its place; what it costs to evade it is still on the page. It
learns from 1,200 development images, clean, with noise and after every attack, and 800
others set its threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.common.networks import development_images
from benchmarks.common.splits import RATES, Split
from benchmarks.detection.attacks import attacks
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.attacks import AdversarialSet, make_adversarial_set, same_norm_noise
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.study.networks import trained_model

__all__ = ["LAPLACIAN_STEPS", "FeatureModel", "Features", "fitted"]

#: Scales of the laplacian at the image, L2 lengths in input units.
LAPLACIAN_STEPS = (0.1, 0.3, 1, 2, 4, 8)
#: The label of images that nobody attacked.
CLEAN = -1
#: Noise as long as the perturbations of these attacks is learned as not attacked.
CONTROLS = ("PGD", "minimal norm x 1.02", "minimal norm x 2")
#: Development images to learn from, and for the threshold.
FIT, CALIBRATION = slice(0, 1200), slice(1200, 2000)


class Features:
    """Curvature at three scales, distance, and the laplacian at six, of all classes.

    Kept on disk, a set of images at a time.
    """

    def __init__(self, model: TorchModel, memory: str) -> None:
        self.model, self.memory = model, memory

    def fit(self, clean: np.ndarray) -> Features:
        """Learn the scale of the steps: what step="auto" chooses."""
        scale = CurvatureFeaturizer(self.model, random_state=0).fit(clean).step_
        self.featurizer = CurvatureFeaturizer(
            self.model,
            features=("curvature", "distance", "laplacian"),
            step=(scale / 2, scale, 2 * scale),
            laplacian_step=LAPLACIAN_STEPS,
            random_state=0,
            memory=self.memory,
        ).fit(clean)
        return self

    def of(self, X: np.ndarray) -> np.ndarray:
        """Return the features of images."""
        return self.featurizer.transform(X)

    @contextmanager
    def not_looked_up(self) -> Iterator[None]:
        """Measure images anew: an attacker never asks for the same one twice."""
        self.featurizer.set_params(memory=None)
        try:
            yield
        finally:
            self.featurizer.set_params(memory=self.memory)


class FeatureModel:
    """The classifier: its classes are the labels before the attack, or CLEAN."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def fit(self, sets: list[tuple[np.ndarray, np.ndarray]]) -> FeatureModel:
        """Learn from sets of images with their classes."""
        # The predicted class is the one without a boundary: NaN tells which it is.
        self.classifier = HistGradientBoostingClassifier(
            learning_rate=0.05, class_weight="balanced", random_state=0
        ).fit(
            np.concatenate([self.features.of(X) for X, _ in sets]),
            np.concatenate([y for _, y in sets]),
        )
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return the log-odds of an attack."""
        clean = self.classifier.predict_proba(self.features.of(X))[:, 0]
        # The odds, not the share: near 0 and 1 shares run out of digits.
        clean = clean.clip(1e-12, 1 - 1e-12)
        return np.log1p(-clean) - np.log(clean)


def fitted(
    network: str, cache: Path | str, data_dir: str | None
) -> tuple[FeatureModel, dict[float, float]]:
    """Return the model of a network, and its thresholds at 1 and 5 %."""
    model = trained_model(network, data_dir=data_dir)
    memory = str(Path(cache) / network)
    X, y = development_images(network, data_dir)
    sets = learned_from(network, model, Split(X[FIT], y[FIT]), memory)
    clean, others = sets[0][0], Split(X[CALIBRATION], y[CALIBRATION])
    made = FeatureModel(Features(model, memory).fit(clean)).fit(sets)
    right = model.predict(others.X) == others.y
    scores = np.sort(made.score(others.X[right]))
    return made, {rate: conformal_threshold(scores, rate) for rate in RATES}


def learned_from(
    network: str, model: TorchModel, split: Split, memory: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images with the labels before the attack, or CLEAN; clean ones first."""
    attack_set = joblib.Memory(memory, verbose=0).cache(attacked, ignore=["model"])
    found = {
        name: attack_set(network, name, model, *split)
        for name in attacks(model, network)
    }
    clean = next(iter(found.values())).clean
    noisy = [
        same_norm_noise(images.clean, images.control_norms, random_state=0)
        for name, images in found.items()
        if name.startswith(CONTROLS)
    ]
    unattacked = [(X, np.full(len(X), CLEAN)) for X in (clean, *noisy)]
    return unattacked + [(s.adversarial, s.original_label) for s in found.values()]


def attacked(
    network: str, name: str, model: TorchModel, X: np.ndarray, y: np.ndarray
) -> AdversarialSet:
    """Run one attack; the names are there to be looked up by."""
    return make_adversarial_set(
        model, attacks(model, network)[name], X, y, batch_size=128
    )
