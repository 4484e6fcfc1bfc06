"""Images before and after the attack, with what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.plotting import ADVERSARIAL, CLEAN
from curvdetect.report.sections.base import Measured

__all__ = ["SIZE", "draw"]

_N_IMAGES = 6
#: In inches.
SIZE = (9.0, 4.6)


def draw(figure: Any, measured: Measured, class_names: Sequence[str]) -> None:
    """Draw an image of each of the first classes, with label and score.

    Parameters
    ----------
    figure : matplotlib Figure or SubFigure
        All of it is filled.
    measured : Measured
        What was measured.
    class_names : sequence of str
        Of all classes, in order.
    """
    images, detector = measured.images, measured.detector
    # One image of each of the first original labels, whatever came of it.
    _, first = np.unique(images.original_label, return_index=True)
    chosen = first[:_N_IMAGES]
    clean, adversarial = measured.pictures(chosen, chosen)
    scores = detector.score_samples(clean), detector.score_samples(adversarial)
    relabelled = measured.relabeler.predict(adversarial)

    axes = figure.subplots(2, len(chosen), squeeze=False)
    for k, (above, below) in enumerate(axes.T):
        original, predicted, recovered = (
            class_names[label[row]]
            for label, row in (
                (images.original_label, chosen[k]),
                (images.predicted_label, chosen[k]),
                (relabelled, k),
            )
        )
        _show(above, images.clean[images.source[chosen[k]]])
        above.set_title(
            f"{original}\n{_verdict(scores[0][k], detector.threshold_)}",
            fontsize=9,
            color=CLEAN,
        )
        _show(below, images.adversarial[chosen[k]])
        below.set_title(
            f"{predicted}\n{_verdict(scores[1][k], detector.threshold_)}\n"
            f"relabelled {recovered}",
            fontsize=9,
            color=ADVERSARIAL,
        )
    figure.suptitle(
        "Predicted class and score: clean images above, adversarial below "
        f"(flagged above {detector.threshold_:+.2f})",
        fontsize=11,
    )


def _verdict(score: float, threshold: float) -> str:
    return f"{score:+.2f} {'flagged' if score > threshold else 'not flagged'}"


def _show(ax: Any, image: npt.NDArray[Any]) -> None:
    ax.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
