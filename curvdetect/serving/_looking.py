"""What a guard and a monitor say of a batch, as plain rows."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.estimators.detector import conformal_p_values
from curvdetect.estimators.guard import Assessment, GuardedClassifier
from curvdetect.estimators.monitor import GuardMonitor, MonitorState
from curvdetect.serving._batching import Row

__all__ = ["Watch", "p_values", "rows_of"]

_LABELS = ("label", "model_label", "recovered_label")
_log = logging.getLogger("curvdetect.serving")


def rows_of(
    found: Assessment, p_values: npt.NDArray[np.float64] | None = None
) -> list[Row]:
    """Return what is answered of each image: names and p-values where there are any.

    Parameters
    ----------
    found : Assessment
        Of n images.
    p_values : ndarray of shape (n,), optional
        What :func:`p_values` returns.

    Returns
    -------
    list of dict
        Numbers and texts of Python.
    """
    columns: dict[str, Any] = {}
    for label in _LABELS:
        columns[label] = getattr(found, label)
        if found.class_names is not None:
            columns[f"{label}_name"] = getattr(found, f"{label}_name")
    columns |= {"flagged": found.flagged, "score": found.score}
    if p_values is not None:
        columns["p_value"] = p_values
    each = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [dict(zip(columns, values, strict=True)) for values in each]


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


class Watch:
    """A monitor that sees every assessment, and says once that it has an alarm.

    Parameters
    ----------
    monitor : GuardMonitor
        Fitted.
    """

    def __init__(self, monitor: GuardMonitor) -> None:
        self.monitor = monitor
        self._told = False
        self.state: MonitorState
        self.update(np.zeros(0))

    def update(self, found: Assessment | npt.NDArray[np.float64]) -> MonitorState:
        """Take the next images of the stream."""
        self.state = self.monitor.update(found)
        if self.state.alarm is not None and not self._told:
            self._told = True
            _log.warning("the monitor has raised an alarm: %s", self.state)
        return self.state
