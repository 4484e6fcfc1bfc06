"""The ROC curve of the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import RocCurveDisplay

from curvdetect.plotting import ADVERSARIAL
from curvdetect.plotting._axes import COLOURS
from curvdetect.report.sections.base import Measured

__all__ = ["CAPTION", "SIZE", "draw", "draw_curves"]

#: In inches.
SIZE = (5.0, 4.0)
#: On a page.
CAPTION = "share of perturbed images that are detected, by that of natural ones."


#: What tells curves apart where their colours do not; chance is dashed.
_DASHES = ("-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)))


def draw(ax: Any, measured: Measured) -> None:
    """Draw the curve for all clean and adversarial images, and that of chance."""
    detector = measured.detector
    draw_curves(
        ax,
        detector.score_samples(measured.clean),
        {measured.title: detector.score_samples(measured.adversarial)},
        colours=(ADVERSARIAL,),
    )


def draw_curves(
    ax: Any,
    clean: npt.NDArray[Any],
    adversarial: Mapping[str, npt.NDArray[Any]],
    *,
    colours: Sequence[str] = COLOURS,
) -> None:
    """Draw a curve for each of several kinds of adversarial images.

    Parameters
    ----------
    ax : matplotlib Axes
        Where to draw.
    clean : ndarray of shape (n,)
        Scores of the clean images, the same for all curves.
    adversarial : mapping of str to ndarray
        Scores of the others, by what they are called in the legend.
    colours : sequence of str
        Of the curves, in order, and over again if there are more.
    """
    last = len(adversarial) - 1
    for number, (name, scores) in enumerate(adversarial.items()):
        RocCurveDisplay.from_predictions(
            np.repeat([0, 1], [len(clean), len(scores)]),
            np.concatenate([clean, scores]),
            name=name,
            ax=ax,
            plot_chance_level=number == last,
            chance_level_kw={"label": "chance"},
            curve_kwargs={
                "color": colours[number % len(colours)],
                "linestyle": _DASHES[number % len(_DASHES)],
            },
        )
    ax.set(xlabel="false-positive rate", ylabel="detection rate")
