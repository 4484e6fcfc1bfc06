"""The detectors of curvdetect, as they come."""

from __future__ import annotations

from functools import partial

import joblib
import numpy as np

from benchmarks.common.processes import timed
from benchmarks.evidence.case import Case, Training
from benchmarks.evidence.detectors.base import (
    Detector,
    has_companion,
    of_both_networks,
)
from curvdetect import (
    CurvatureFeaturizer,
    CurvatureThresholdDetector,
    LearnedDetector,
)
from curvdetect.attacks import KINDS

__all__ = ["DETECTORS", "GUARD", "GUARD_WITH_COMPANION"]

#: Networks on which the guard learns with three seeds.
SEEDED = ("lenet_fashion_mnist", "lenet_mnist")
GUARD = "learned guard"
GUARD_WITH_COMPANION = "learned guard, with a companion"


class Guard:
    """The learned detector, which attacks the clean images by itself."""

    def __init__(
        self, case: Case, *, with_companion: bool = False, random_state: int = 0
    ) -> None:
        self.case, self.with_companion = case, with_companion
        self.random_state = random_state

    def fit(self, training: Training) -> Guard:
        """Learn from all images to learn from, and none of the benchmark's attacks."""
        fit = joblib.Memory(self.case.files.cache, verbose=0).cache(
            learned_guard, ignore=["case"]
        )
        self.detector, self.fit_seconds = fit(
            self.case,
            (self.case.name, *self.case.sizes),
            with_companion=self.with_companion,
            kinds=tuple(kind for kind in KINDS if kind != training.left_out),
            random_state=self.random_state,
        )
        self.clean_scores = self.detector.clean_scores_
        both = self.detector.model, self.detector.companion
        self.networks = tuple(model.module for model in both if model is not None)
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return scores of images."""
        return self.detector.score_samples(X)


def learned_guard(
    case: Case,
    key: tuple,
    *,
    with_companion: bool,
    kinds: tuple[str, ...],
    random_state: int,
) -> tuple[LearnedDetector, float]:
    """Fit the detector, and say how long it took; `key` is there to be looked up by."""
    detector = LearnedDetector(
        case.model,
        companion=case.companion if with_companion else None,
        target_fpr=0.01,
        kinds=kinds,
        self_test=False,
        random_state=random_state,
    )
    seconds, fitted = timed(detector.fit, *case.fit)
    return fitted, seconds


class Threshold:
    """The default of 0.1: one threshold on the largest average curvature."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def fit(self, training: Training) -> Threshold:
        """Learn the step from clean images; nothing is learned from attacks."""
        self.featurizer = CurvatureFeaturizer(self.case.model, random_state=0)
        clean = self.featurizer.fit_transform(training.clean.X[:100])
        self.detector = CurvatureThresholdDetector(target_fpr=0.05).fit(clean)
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        """Return scores of images."""
        return self.detector.score_samples(self.featurizer.transform(X))


def _small(case: Case) -> bool:
    return case.network.data != "cifar10"  # hundreds of passes an image


_OWN = {
    "learns": "attacks of its own",
    "source": "this package",
    "ours": True,
    "own_kinds": KINDS,
}
DETECTORS = (
    Detector(name=GUARD, make=Guard, **_OWN),
    Detector(
        name=GUARD_WITH_COMPANION,
        make=partial(Guard, with_companion=True),
        applies=has_companion,
        networks=of_both_networks,
        **_OWN,
    ),
    *(
        Detector(
            name=f"{GUARD}, seed {seed}",
            make=partial(Guard, random_state=seed),
            applies=lambda case: case.name in SEEDED,
            **_OWN | {"own_kinds": ()},
        )
        for seed in (1, 2)
    ),
    Detector(
        name="threshold of curvature",
        make=Threshold,
        learns="clean images",
        source="this package, the default of 0.1",
        ours=True,
        applies=_small,
        n_images=100,
    ),
)
