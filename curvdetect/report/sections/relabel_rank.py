"""The rank of the original label among the boundaries of an adversarial image."""

from __future__ import annotations

from typing import Any

from curvdetect.plotting import RelabelRankDisplay
from curvdetect.report.sections.base import Measured

__all__ = ["CAPTION", "SIZE", "draw"]

#: In inches.
SIZE = (5.0, 4.0)
#: On a page.
CAPTION = (
    "rank of the original label among the nine boundaries, for all perturbed images."
)


def draw(ax: Any, measured: Measured) -> None:
    """Draw how often the label has each rank; at the first one, it is recovered."""
    RelabelRankDisplay.from_estimator(
        measured.relabeler, measured.adversarial, measured.images.original_label, ax=ax
    )
