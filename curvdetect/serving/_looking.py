"""What a guard and a monitor say of a batch, as plain rows."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.estimators.guard import Assessment
from curvdetect.estimators.monitor import GuardMonitor, MonitorState
from curvdetect.serving._batching import Row

__all__ = ["Watch", "rows_of"]

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
        Of the images, if they are known.

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
