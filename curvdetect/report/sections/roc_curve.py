"""The ROC curve of the detector."""

from __future__ import annotations

from typing import Any

from sklearn.metrics import RocCurveDisplay

from curvdetect.plotting import ADVERSARIAL
from curvdetect.report.sections.base import Measured, joined

__all__ = ["CAPTION", "SIZE", "draw"]

#: In inches.
SIZE = (5.0, 4.0)
#: On a page.
CAPTION = "share of perturbed images that are detected, by that of natural ones."


def draw(ax: Any, measured: Measured) -> None:
    """Draw the curve for all clean and adversarial images, and that of chance."""
    X, y = joined(measured.clean, measured.adversarial)
    RocCurveDisplay.from_predictions(
        y,
        measured.detector.score_samples(X),
        name=measured.title,
        ax=ax,
        plot_chance_level=True,
        chance_level_kw={"label": "chance"},
        curve_kwargs={"color": ADVERSARIAL},
    )
    ax.set(xlabel="false-positive rate", ylabel="detection rate")
