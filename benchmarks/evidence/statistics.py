"""Means over attacks with their intervals, and differences between detectors, paired.

Everything is resampled by clean test image, with all that attacks made of it: detectors
are compared on the same images, and so are attacks. The mean is over kinds of attacks,
within each over its attacks, so that no kind weighs more for having more budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curvdetect.study.metrics import Estimate

__all__ = ["Compared", "Resampled", "compared", "holm", "resampled", "weights"]

Values = npt.NDArray[np.float64]
N_RESAMPLES = 2000


@dataclass(frozen=True)
class Resampled:
    """A figure of the images at hand, and of every resample of them."""

    value: float
    values: Values

    def estimate(self) -> Estimate:
        """Return the figure with its 95 % percentile interval."""
        low, high = np.quantile(self.values, (0.025, 0.975))
        return Estimate(self.value, float(low), float(high))


def weights(n_images: int, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Values:
    """Return how often each image is drawn, (n_resamples + 1, n_images).

    The first row is the sample itself: each image once.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_images, np.full(n_images, 1 / n_images), n_resamples)
    return np.concatenate([np.ones((1, n_images)), drawn])


def auroc(
    clean: Values, adversarial: Values, source: npt.NDArray[np.int64], drawn: Values
) -> Values:
    """Return the area under the ROC curve for each row of `drawn`.

    `clean` are scores of clean images, those that `drawn` has a column for or the first
    of these; `source` says from which of them each adversarial one was made. A pair
    counts as often as both of its images were drawn; a tie is half a success.
    """
    above = (adversarial > clean[:, None]) + 0.5 * (adversarial == clean[:, None])
    of_clean, of_attacked = drawn[:, : len(clean)], drawn[:, source]
    pairs = of_clean.sum(axis=1) * of_attacked.sum(axis=1)
    return ((of_clean @ above) * of_attacked).sum(axis=1) / np.maximum(pairs, 1)


def share(hits: Values, source: npt.NDArray[np.int64], drawn: Values) -> Values:
    """Return the share of hits among adversarial images, for each row of `drawn`."""
    of_attacked = drawn[:, source]
    return of_attacked @ hits / np.maximum(of_attacked.sum(axis=1), 1)


def resampled(of_attack: Mapping[str, Values], kinds: Mapping[str, str]) -> Resampled:
    """Return the mean over kinds of the means over their attacks."""
    by_kind: dict[str, list[Values]] = {}
    for name, values in of_attack.items():
        by_kind.setdefault(kinds[name], []).append(values)
    means = np.mean([np.mean(each, axis=0) for each in by_kind.values()], axis=0)
    return Resampled(float(means[0]), means[1:])


@dataclass(frozen=True)
class Compared:
    """How far one detector is ahead of another, on the same resamples.

    `p` is the share of resamples in which it is not ahead, of all and one more.
    """

    difference: Estimate
    p: float


def compared(ours: Resampled, other: Resampled) -> Compared:
    """Return the paired difference of two figures."""
    differences = ours.values - other.values
    behind = (np.sum(differences <= 0) + 1) / (len(differences) + 1)
    difference = Resampled(ours.value - other.value, differences)
    return Compared(difference.estimate(), float(behind))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (S. Holm, 1979)."""
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    corrected = np.maximum.accumulate(np.asarray(p)[order] * factors).clip(max=1)
    found = np.empty(len(p))
    found[order] = corrected
    return [float(value) for value in found]
