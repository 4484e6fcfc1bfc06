"""The principal curvatures of the boundaries around a few images, in order."""

from __future__ import annotations

from typing import Any

from curvdetect.plotting import CurvatureProfileDisplay
from curvdetect.report.sections.base import Measured

__all__ = ["CAPTION", "SIZE", "draw"]

_N_IMAGES = 10
#: The report's step along the pixel axes.
_STEP = 0.1
#: In inches.
SIZE = (6.0, 4.0)
#: On a page.
CAPTION = f"principal curvatures of the nine boundaries, mean over {_N_IMAGES} images."


def draw(ax: Any, measured: Measured) -> None:
    """Draw the profile of the first clean images; takes a gradient for each value."""
    CurvatureProfileDisplay.from_model(
        measured.model, measured.images.clean[:_N_IMAGES], step=_STEP, ax=ax
    )
