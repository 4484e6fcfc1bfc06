"""Networks and images of the detection benchmark, and who knows its default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.common.networks import (
    NETWORKS,
    development_images,
    load_images,
    smallest_eps,
)
from benchmarks.common.splits import RATES, Split
from curvdetect import CurvatureFeaturizer, GuardedClassifier, TorchModel
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.evasion import EvasionAttack, NeighbourhoodMarginAttack, SignalScore
from curvdetect.study.networks import trained_model

N_REFERENCE = 5000
#: Attacks that know the default detector.
ADAPTIVE = ("adaptive: neighbourhood margin", "adaptive: orthogonal PGD")


@dataclass(frozen=True)
class Protocol:
    """A network, images that it was trained on, and three sets of others.

    `reference` is of the first kind, for detectors of other packages that learn what
    natural images look like; `fit` is what detectors learn from, clean and attacked;
    `calibration` sets their thresholds, clean alone; `test` gives the figures and
    nothing else.
    """

    network: str
    model: TorchModel
    reference: Split
    fit: Split
    calibration: Split
    test: Split


def load_protocol(network: str, data_dir: str | None, scale: float = 1.0) -> Protocol:
    """Load a network and its images; `scale` shrinks the sets, to try things out."""
    X, y = load_images(network, data_dir)
    known = load_images(network, data_dir, train=True)
    model = trained_model(network, data_dir=data_dir)
    reference = Split(*(values[:N_REFERENCE] for values in known))
    if network == "cifar10":
        # Only 1,017 test images are at hand, and the network knows all others.
        parts = [(X, y, 0, 240), (X, y, 240, 240), (X, y, 480, 280)]
    else:
        X_dev, y_dev = development_images(network, data_dir)
        # The first 1,000 test images served other benchmarks.
        parts = [(X_dev, y_dev, 0, 1200), (X_dev, y_dev, 1200, 800), (X, y, 1000, 600)]
    splits = []
    for images, labels, start, size in parts:
        rows = slice(start, start + max(int(scale * size), 20))
        splits.append(Split(images[rows], labels[rows]))
    return Protocol(network, model, reference, *splits)


def adaptive_attacks(protocol: Protocol) -> dict[str, Callable]:
    """Return ADAPTIVE, against the network and a guard with defaults."""
    network, model = protocol.network, protocol.model
    eps = smallest_eps(network)
    right = model.predict(protocol.fit.X) == protocol.fit.y
    learned = CurvatureFeaturizer(model, random_state=0).fit(protocol.fit.X[right])
    featurizer = CurvatureFeaturizer(model, step=learned.step_, random_state=0)
    guard = GuardedClassifier(model, featurizer=featurizer, target_fpr=0.05)
    guard.fit(protocol.calibration.X, protocol.calibration.y)
    steps = 15 if network == "cifar10" else 25
    neighbourhood = NeighbourhoodMarginAttack(
        model, eps=eps, radius=NETWORKS[network].radius, steps=steps
    )
    orthogonal = EvasionAttack(
        model,
        SignalScore(guard.featurizer_),
        float(guard.detector_.threshold_),
        eps=eps,
        steps=steps,
    )
    return dict(zip(ADAPTIVE, (neighbourhood, orthogonal), strict=True))


def thresholds(
    protocol: Protocol, score: Callable[[np.ndarray], np.ndarray]
) -> tuple[dict[float, float], int]:
    """Return thresholds at 1 and 5 % false positives, and from how many images."""
    images = protocol.calibration
    right = protocol.model.predict(images.X) == images.y
    clean = np.sort(score(images.X[right]))
    return {fpr: conformal_threshold(clean, fpr) for fpr in RATES}, len(clean)
