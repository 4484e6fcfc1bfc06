"""The average curvature of the boundaries, before and after the attack."""

from __future__ import annotations

from typing import Any

from curvdetect.plotting import AverageCurvatureDisplay
from curvdetect.report.sections.base import Measured

__all__ = ["CAPTION", "SIZE", "draw"]

#: In inches.
SIZE = (5.0, 4.0)
#: On a page.
CAPTION = (
    "average curvature of the nine boundaries, in order, of natural and perturbed "
    "images."
)


def draw(ax: Any, measured: Measured) -> None:
    """Draw the averages over all images, boundaries in order of curvature."""
    AverageCurvatureDisplay.from_predictions(
        measured.clean, measured.adversarial, ax=ax
    )
