"""What a learned detector says of itself."""

from __future__ import annotations

from typing import Any

from curvdetect.estimators import SelfTest
from curvdetect.plotting import SelfTestDisplay
from curvdetect.report.sections.base import Measured

__all__ = ["CAPTION", "SIZE", "draw", "draw_test"]

#: In inches.
SIZE = (6.4, 6.0)
#: On a page.
CAPTION = "share of each attack that is detected, by the detector's own test."


def draw(ax: Any, measured: Measured) -> None:
    """Draw every attack that the detector tried, with 95 % intervals."""
    if measured.detector.self_test_ is None:
        ax.text(0.5, 0.5, "too few images for a self-test", ha="center")
        ax.set_axis_off()
        return
    draw_test(ax, measured.detector.self_test_)


def draw_test(ax: Any, test: SelfTest) -> None:
    """Draw every attack of a self-test, whoever made it."""
    SelfTestDisplay(test).plot(ax=ax)
    ax.tick_params(axis="y", labelsize="small")
