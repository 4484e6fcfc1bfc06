"""What detectors share that learn from attacks: features, and a classifier of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common.splits import Split
from benchmarks.evidence.case import CLEAN, Training

__all__ = ["Features", "OnFeatures", "forest", "logistic"]


class Features(Protocol):
    """Numbers that describe images; those of an image depend on no other image."""

    def learn(self, reference: Split) -> None:
        """Learn what they need from clean images that the network was trained on."""
        ...

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return them, (n, d)."""
        ...


class OnFeatures:
    """Features, and what tells those of attacked images from those of clean ones."""

    def __init__(self, features: Features, make: Callable[[], Any]) -> None:
        self.features, self.make = features, make

    def fit(self, training: Training) -> OnFeatures:
        self.features.learn(training.reference)
        X, labels, _ = training.labelled()
        self.classifier = self.make().fit(self.features(X), labels != CLEAN)
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        features = self.features(X)
        if hasattr(self.classifier, "decision_function"):
            return self.classifier.decision_function(features)
        return self.classifier.predict_proba(features)[:, 1]


def logistic() -> Any:
    """Return a logistic regression that knows of no scales and no class sizes."""
    regression = LogisticRegression(class_weight="balanced", max_iter=300, tol=1e-3)
    return make_pipeline(StandardScaler(), regression)


def forest() -> Any:
    """Return a random forest; its trees are fewer than in papers, for the time."""
    return RandomForestClassifier(
        100, min_samples_leaf=2, class_weight="balanced", random_state=0
    )
