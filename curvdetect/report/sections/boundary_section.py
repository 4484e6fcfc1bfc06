"""A section through the boundary near an image."""

from __future__ import annotations

from typing import Any

from curvdetect.plotting import BoundarySectionDisplay
from curvdetect.report.sections.base import Measured

__all__ = ["CAPTION", "SIZE", "draw"]

#: In inches.
SIZE = (5.0, 4.4)
#: On a page.
CAPTION = (
    "the boundary near a test image, in the plane of its normal and the way to the "
    "image."
)


def draw(ax: Any, measured: Measured) -> None:
    """Draw the section for the first clean image."""
    BoundarySectionDisplay.from_model(measured.model, measured.images.clean[0], ax=ax)
