"""What is compared: every detector learns, scores images, and may relabel them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest

from benchmarks.common.splits import Split
from benchmarks.detection.kinds import KINDS, WITHOUT
from benchmarks.detection.peers import PEERS
from curvdetect import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    TorchModel,
)
from curvdetect.attacks import AdversarialSet

#: Scales of the laplacian at the image, L2 lengths in input units.
LAPLACIAN_STEPS = (0.1, 0.3, 1, 2, 4, 8)
#: The label of images that nobody attacked.
CLEAN = -1


@dataclass(frozen=True)
class Training:
    """What detectors may learn from: clean images, the same with noise, attacks.

    And `reference`: images that the network was trained on, clean alone.
    """

    reference: Split
    clean: Split
    noisy: dict[str, np.ndarray]
    attacked: dict[str, AdversarialSet]

    def sets(
        self, only: str = "", without: tuple[str, ...] = ()
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return sets of images, with the labels before the attack, or CLEAN.

        Of the attacks, those whose names begin with `only` and not with `without`.
        """
        clean = [self.clean.X, *self.noisy.values()]
        attacked = [
            (images.adversarial, images.original_label)
            for name, images in self.attacked.items()
            if name.startswith(only) and not name.startswith(without)
        ]
        return [(X, np.full(len(X), CLEAN)) for X in clean] + attacked

    def sources(self) -> np.ndarray:
        """Return from which clean image each of :meth:`labelled` was made."""
        own = np.arange(len(self.clean.X))
        attacked = [images.source for images in self.attacked.values()]
        return np.concatenate([own, *[own for _ in self.noisy], *attacked])

    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all of them in one."""
        images, labels = zip(*self.sets(), strict=True)
        return np.concatenate(images), np.concatenate(labels)


class Features:
    """Curvature at three scales, distance, and the laplacian at six, of all classes.

    Shared by all detectors of ours, and kept on disk, a set of images at a time.
    """

    def __init__(self, model: TorchModel, memory: str | None) -> None:
        self.model, self.memory = model, memory

    def fit(self, clean: np.ndarray) -> Features:
        """Learn the scale of the steps: what step="auto" chooses."""
        if hasattr(self, "featurizer"):
            return self
        self.scale = CurvatureFeaturizer(self.model, random_state=0).fit(clean).step_
        self.featurizer = CurvatureFeaturizer(
            self.model,
            features=("curvature", "distance", "laplacian"),
            step=(self.scale / 2, self.scale, 2 * self.scale),
            laplacian_step=LAPLACIAN_STEPS,
            random_state=0,
            memory=self.memory,
        ).fit(clean)
        return self

    def of(self, X: np.ndarray) -> np.ndarray:
        return self.featurizer.transform(X)

    def blocks(self, X: np.ndarray) -> np.ndarray:
        """Return the features of a set as (n_images, n_features, n_classes)."""
        return self.of(X).reshape(len(X), -1, self.featurizer.n_classes_)

    @contextmanager
    def not_looked_up(self) -> Iterator[None]:
        """Measure images anew, for their cost."""
        self.featurizer.set_params(memory=None)
        try:
            yield
        finally:
            self.featurizer.set_params(memory=self.memory)


class Threshold:
    """The package's default: one threshold on the largest curvature.

    Its features are among the shared ones: the middle scale, in the same directions.
    """

    def __init__(self, features: Features) -> None:
        self.features = features

    def fit(self, training: Training) -> Threshold:
        """Learn the step from clean images; nothing is learned from attacks."""
        self.features.fit(training.clean.X)
        clean = self._curvatures(training.clean.X)
        self.detector = CurvatureThresholdDetector(target_fpr=0.05).fit(clean)
        self.relabeler = CurvatureRelabeler().fit(clean)
        return self

    def _curvatures(self, X: np.ndarray) -> np.ndarray:
        return self.features.blocks(X)[:, 1]

    def score(self, X: np.ndarray) -> np.ndarray:
        return self.detector.score_samples(self._curvatures(X))

    def relabel(self, X: np.ndarray) -> np.ndarray:
        return self.relabeler.predict(self._curvatures(X))

    def alone(self, X: np.ndarray) -> None:
        """Score images with the default featurizer, for its cost."""
        default = CurvatureFeaturizer(
            self.features.model, step=self.features.scale, random_state=0
        )
        self.detector.score_samples(default.fit_transform(X))


class OnAllFeatures:
    """A detector that needs all the shared features."""

    features: Features
    score: Callable

    def alone(self, X: np.ndarray) -> None:
        """Score images that were not seen before, for the cost."""
        with self.features.not_looked_up():
            self.score(X)


class Learned(OnAllFeatures):
    """A classifier of scikit-learn on all features: the label before, or CLEAN.

    It learns from the attacks whose names begin with `only`, or not with `without`.
    """

    def __init__(
        self, features: Features, *, only: str = "", without: tuple[str, ...] = ()
    ) -> None:
        self.features, self.only, self.without = features, only, without

    def fit(self, training: Training) -> Learned:
        self.features.fit(training.clean.X)
        sets = training.sets(self.only, self.without)
        # The predicted class is the one without a boundary: NaN tells which it is.
        self.classifier = HistGradientBoostingClassifier(
            learning_rate=0.05, class_weight="balanced", random_state=0
        ).fit(
            np.concatenate([self.features.of(X) for X, _ in sets]),
            np.concatenate([y for _, y in sets]),
        )
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        clean = self.classifier.predict_proba(self.features.of(X))[:, 0]
        # The odds, not the share: near 0 and 1 shares run out of digits.
        clean = clean.clip(1e-12, 1 - 1e-12)
        return np.log1p(-clean) - np.log(clean)

    def relabel(self, X: np.ndarray) -> np.ndarray:
        proba = self.classifier.predict_proba(self.features.of(X))[:, 1:]
        return self.classifier.classes_[1:][proba.argmax(axis=1)]


class CleanOnly(OnAllFeatures):
    """Outliers among the features of clean images and those with noise."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def fit(self, training: Training) -> CleanOnly:
        self.features.fit(training.clean.X)
        sets = [training.clean.X, *training.noisy.values()]
        self.forest = IsolationForest(n_estimators=300, random_state=0).fit(
            np.concatenate([self._sorted(X) for X in sets])
        )
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        return -self.forest.score_samples(self._sorted(X))

    def _sorted(self, X: np.ndarray) -> np.ndarray:
        """Order each feature over the classes, so that images can be compared."""
        blocks = self.features.blocks(X)
        ordered = np.sort(np.where(np.isnan(blocks), -np.inf, blocks), axis=2)[:, :, 1:]
        return np.where(np.isinf(ordered), 0, ordered).reshape(len(X), -1)


def detectors(
    model: TorchModel, network: str, memory: str | None
) -> dict[str, Callable]:
    """Return what makes each detector; ours first."""
    features = Features(model, memory)
    ours: dict[str, Callable] = {
        "curvature": lambda: Threshold(features),
        "curvature, learned": lambda: Learned(features),
        "curvature, learned from PGD": lambda: Learned(features, only="PGD"),
        "curvature, outliers": lambda: CleanOnly(features),
    }
    for kind, attacks in KINDS.items():
        ours[WITHOUT + kind] = lambda attacks=attacks: Learned(
            features, without=attacks
        )
    peers = {
        name: lambda make=make: make(model, network) for name, make in PEERS.items()
    }
    return {**ours, **peers}
