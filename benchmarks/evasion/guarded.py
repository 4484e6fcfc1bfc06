"""The learned guard as attackers meet it, and norms of what they find."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.results import rounded
from benchmarks.common.splits import RATES, Split, load_companion, load_subject
from curvdetect import LearnedDetector, TorchModel
from curvdetect.attacks import MinimalNormAttack
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.geometry import (
    RegionMargin,
    find_adversarial_perturbation,
    find_joint_perturbation,
)

__all__ = [
    "Guarded",
    "as_list",
    "further_on",
    "lengths",
    "load_guarded",
    "on_the_network",
    "unflagged",
]

#: As multiples of an image's own smallest perturbation.
FACTORS = np.geomspace(1.02, 12, 60)
#: Says which of some images, with their labels, are what an attacker wants.
Succeeds = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guarded:
    """A fitted guard, its thresholds by their rates, and images of each purpose."""

    data: str
    detector: LearnedDetector
    thresholds: dict[float, float]
    fit: Split
    test: Split
    more: Split

    @property
    def network(self) -> TorchModel:
        """The network, as it is within its bounds."""
        return self.detector.model_

    @property
    def strictest(self) -> float:
        """The smallest threshold: what is below it is flagged at no rate."""
        return min(self.thresholds.values())

    def attackable(self, n: int, threshold: float) -> tuple[Tensor, Tensor]:
        """Return the first test images that are right and not flagged, and labels."""
        X, y = self.test
        seen = self.detector.examine(X)
        kept = (seen.logits.argmax(1) == y) & (seen.score <= threshold)
        return torch.from_numpy(X[kept][:n]), torch.from_numpy(y[kept][:n])

    def starts(self) -> tuple[Tensor, Tensor]:
        """Return further images that are right, and their labels."""
        X, y = self.more
        right = self.network.predict(X) == y
        return torch.from_numpy(X[right]), torch.from_numpy(y[right])

    def smallest(self, x: Tensor):
        """Return the smallest perturbations found that fool the network alone."""
        with self.network.evaluating():
            return find_adversarial_perturbation(
                self.network.logits, x, bounds=self.network.bounds
            )


def load_guarded(network: str, args: argparse.Namespace) -> Guarded:
    """Fit the guard of a network, with a companion where one is asked for."""
    model, data, fit, test, more = load_subject(
        network, strangers=args.strangers, data_dir=args.data_dir
    )
    detector = LearnedDetector(
        model,
        companion=load_companion(data, args.companions, args.data_dir),
        target_fpr=0.01,
        self_test=False,
        random_state=0,
    ).fit(*fit)
    thresholds = {f: conformal_threshold(detector.clean_scores_, f) for f in RATES}
    return Guarded(data, detector, thresholds, fit, test, more)


def unflagged(
    detector: LearnedDetector, threshold: float, images: Tensor, labels: Tensor
) -> Tensor:
    """Say which images fool the network and are not flagged."""
    found = detector.examine(images)
    wrong = found.logits.argmax(axis=1) != labels.numpy()
    return torch.from_numpy(wrong & (found.score <= threshold))


def as_list(norms: Tensor) -> list[float]:
    """Return norms for a file."""
    return rounded(norms.tolist())


def lengths(x: Tensor, found: Tensor, succeeds: Succeeds, label: Tensor) -> Tensor:
    """Return the norms of what succeeds; infinity elsewhere."""
    norms = (found - x).flatten(1).norm(dim=1)
    return norms.where(succeeds(found, label), torch.inf)


def on_the_network(model: TorchModel, x: Tensor, label: Tensor, unit: float) -> Tensor:
    """Return the smallest norms that fool the network, by the short way alone."""
    with model.evaluating():
        right = RegionMargin(model.logits, label)
        return find_joint_perturbation(
            lambda z: -right(z)[:, None], x, radius=unit, bounds=model.bounds
        ).norms


def further_on(
    model: TorchModel, x: Tensor, label: Tensor, points: Tensor, succeeds: Succeeds
) -> Tensor:
    """Return the smallest norms where the smallest perturbation leads, farther on."""
    best = torch.full((len(x),), torch.inf)
    for factor in FACTORS:
        ahead = MinimalNormAttack(model, factor=float(factor)).along(x, points)
        best = best.minimum(lengths(x, ahead, succeeds, label))
    return best
