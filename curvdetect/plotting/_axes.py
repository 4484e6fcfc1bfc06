"""Colours, and axes to draw in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curvdetect._base.extras import require

__all__ = [
    "ADVERSARIAL",
    "CLEAN",
    "COLOURS",
    "axes_or_new",
    "class_label",
    "rank_ticks",
]

#: Colours that the colour-blind tell apart (Okabe and Ito).
CLEAN, ADVERSARIAL = "#0072B2", "#D55E00"
#: And more of them, for pictures with several lines.
COLOURS = (CLEAN, ADVERSARIAL, "#009E73", "#CC79A7", "#E69F00")


def axes_or_new(ax: Any) -> tuple[Any, Any]:
    """Return axes, new ones if there are none, and their figure."""
    if ax is None:
        _, ax = require("matplotlib.pyplot", extra="plot").subplots()
    return ax, ax.figure


def class_label(number: int, class_names: Sequence[str] | None) -> str:
    """Return what a class is called in a legend; of several names, the first."""
    if class_names is None:
        return f"class {number}"
    return class_names[number].partition(",")[0]  # "tench, Tinca tinca"


def rank_ticks(ax: Any, n: int) -> None:
    """Mark ranks 1 to n: all of them up to ten, the first and the last in any case."""
    ax.set_xticks(np.unique(np.linspace(1, n, min(n, 10)).round().astype(int)))
