"""Detectors that ask a second network, of the same task and another training.

The second network is the companion of the data set; where none was trained, they do not
apply.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.evidence.case import Training
from benchmarks.evidence.detectors.base import (
    Detector,
    companion_of,
    has_companion,
    of_both_networks,
)
from curvdetect import TorchModel

__all__ = ["DETECTORS"]


class SecondOpinion:
    """What both networks say of an image, compared; nothing is learned."""

    def __init__(self, model: TorchModel, second: TorchModel) -> None:
        self.model, self.second = model, second

    def fit(self, training: Training) -> SecondOpinion:
        return self

    def score(self, X: np.ndarray) -> np.ndarray:
        both = (self.model, self.second)
        own, other = (torch.from_numpy(m.predict_logits(X)).double() for m in both)
        return self.compared(own, other).numpy()

    def compared(self, own: Tensor, other: Tensor) -> Tensor:
        """Return scores from the logits of both, (n, K)."""
        raise NotImplementedError


class Doubt(SecondOpinion):
    """1 - g_y(x): what the second network leaves to other labels than the network's.

    y is the network's label, g the softmax of the second. This is how the abstract of
    Han et al., "Prediction Inconsistency Helps Achieve Generalizable Detection of
    Adversarial Examples" (PID, arXiv:2506.03765), puts what tells attacked images: that
    the auxiliary network "tends to assign low confidence to the primary model's
    predictions". Their formula was not at hand, and they have a second form, which uses
    the network's probabilities too: `Inconsistency` may be unlike it. Their auxiliary
    networks differ in architecture or are trained against attacks; ours is the
    companion.

    Computed from what speaks for other labels, so that small values are not rounded
    to 0.
    """

    def compared(self, own: Tensor, other: Tensor) -> Tensor:
        label = own.argmax(1, keepdim=True)
        others = other.scatter(1, label, -torch.inf).logsumexp(1)
        return torch.sigmoid(others - other.gather(1, label)[:, 0])


class Inconsistency(SecondOpinion):
    """sum_k |f_k(x) - g_k(x)|: how far apart the probabilities of both are, 0 to 2."""

    def compared(self, own: Tensor, other: Tensor) -> Tensor:
        return (own.softmax(1) - other.softmax(1)).abs().sum(1)


class Disagreement(SecondOpinion):
    """1 where the labels of both differ, else 0."""

    def compared(self, own: Tensor, other: Tensor) -> Tensor:
        return (own.argmax(1) != other.argmax(1)).double()


def _detector(name: str, compare: type[SecondOpinion], source: str) -> Detector:
    return Detector(
        name,
        lambda case: compare(case.model, companion_of(case)),
        "nothing",
        source,
        applies=has_companion,
        networks=of_both_networks,
    )


DETECTORS = (
    _detector("companion, 1 - probability", Doubt, "after PID, arXiv:2506.03765"),
    _detector("companion, L1 of probabilities", Inconsistency, "a baseline"),
    _detector("companion, labels differ", Disagreement, "a baseline"),
)
