"""Scores of a few pictures, with the threshold that is the best for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

from curvdetect.plotting import ADVERSARIAL, CLEAN
from curvdetect.report.sections.base import Measured, joined

__all__ = ["CAPTION", "N_EACH", "SIZE", "draw"]

#: Pictures of each kind, as many as in the report.
N_EACH = 25
#: In inches.
SIZE = (5.0, 4.0)
#: On a page.
CAPTION = (
    f"scores of {N_EACH} natural and {N_EACH} perturbed pictures, with the best "
    "threshold."
)


def draw(ax: Any, measured: Measured) -> None:
    """Draw the first 25 natural and the next 25 perturbed pictures."""
    natural, perturbed = np.arange(2 * N_EACH).reshape(2, N_EACH)
    features = measured.pictures(natural, perturbed)
    detector = clone(measured.detector).fit(*joined(*features))
    for values, label, color, marker in (
        (features[0], "clean", CLEAN, "o"),
        (features[1], "adversarial", ADVERSARIAL, "^"),
    ):
        scores = detector.score_samples(values)
        ax.plot(np.arange(N_EACH), scores, marker, color=color, label=label)
    ax.axhline(detector.threshold_, color="0.3", linestyle="--", label="threshold")
    ax.set(
        xlabel="picture",
        ylabel=f"{detector.statistic} of the average curvatures\n(1 / input units)",
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, frameon=False)
