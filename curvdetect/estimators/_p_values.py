"""p-values of images that a guard has assessed already."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curvdetect.estimators.detector import conformal_p_values
from curvdetect.estimators.guard import Assessment, GuardedClassifier

__all__ = ["p_values"]


def p_values(
    guard: GuardedClassifier, found: Assessment
) -> npt.NDArray[np.float64] | None:
    """Return the p-values of images that a guard has assessed, for no further pass.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted.
    found : Assessment
        What it made of n images.

    Returns
    -------
    ndarray of shape (n,) or None
        As :meth:`curvdetect.GuardedClassifier.p_values` gives them; None if the guard
        has none, or would have to look at the images again: a
        :class:`~curvdetect.VotingDetector` with another detector in it.
    """
    detector = guard.detector_
    clean = getattr(detector, "clean_scores_", None)
    if clean is None or getattr(detector, "detector_", None) is not None:
        return None
    # Both less the threshold, rounded in the same way: equal scores remain equal.
    return conformal_p_values(clean - detector.threshold_, found.score)
