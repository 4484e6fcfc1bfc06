"""The learned guard as attackers meet it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.common.results import rounded
from benchmarks.common.splits import RATES, Split, load_companion, load_subject
from curvdetect import LearnedDetector, TorchModel
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.geometry import find_adversarial_perturbation

__all__ = ["Guarded", "as_list", "load_guarded"]


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


def as_list(norms: Tensor) -> list[float]:
    """Return norms for a file."""
    return rounded(norms.tolist())
