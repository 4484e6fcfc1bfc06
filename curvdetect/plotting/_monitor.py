"""What a monitor made of a stream, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect._base.checks import check_share
from curvdetect.estimators.monitor import MonitorState
from curvdetect.plotting._axes import ADVERSARIAL, CLEAN, axes_or_new

__all__ = ["MonitorDisplay"]


class MonitorDisplay:
    """The martingale of a monitor against the number of images, and where it alarms.

    Parameters
    ----------
    path : array of shape (n,)
        Common logarithm of the martingale after each image.
    level : float, default=0.01
        Of the monitor.
    n_before : int, default=0
        How many images came before the first of them.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> from curvdetect.plotting import MonitorDisplay
    >>> display = MonitorDisplay([-0.1, 0.5, 2.2, 3.0]).plot()
    >>> display.ax_.get_xlabel()
    'images since the calibration'
    """

    def __init__(
        self, path: npt.ArrayLike, *, level: float = 0.01, n_before: int = 0
    ) -> None:
        check_share("level", level)
        self.path = np.asarray(path, dtype=float)
        self.level = level
        self.n_before = n_before

    @classmethod
    def from_states(
        cls, states: Sequence[MonitorState], *, level: float = 0.01, ax: Any = None
    ) -> MonitorDisplay:
        """Draw what successive updates returned.

        Parameters
        ----------
        states : sequence of MonitorState
            Of :meth:`curvdetect.GuardMonitor.update`, one after another.
        level : float, default=0.01
            Of the monitor.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        MonitorDisplay
            Drawn.

        Raises
        ------
        ValueError
            If there are none, or some in between are missing.
        """
        if not states:
            raise ValueError("states must hold at least one state; got none")
        ends = np.array([state.n_images for state in states])
        starts = ends - [len(state.path) for state in states]
        gaps = np.flatnonzero(starts[1:] != ends[:-1])
        if len(gaps):
            raise ValueError(
                "states must follow one another; got one that ends after "
                f"{ends[gaps[0]]} images, and after it one that begins there with "
                f"{starts[gaps[0] + 1]}"
            )
        path = np.concatenate([state.path for state in states])
        display = cls(path, level=level, n_before=int(starts[0])).plot(ax=ax)
        alarm = states[-1].alarm
        if alarm is not None:
            display.ax_.set_title(
                f"alarm after {states[-1].alarm_at} images: {alarm}", fontsize="medium"
            )
        return display

    def plot(self, *, ax: Any = None) -> MonitorDisplay:
        """Draw the path and the level.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        MonitorDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        limit = -math.log10(self.level)
        at = self.n_before + 1 + np.arange(len(self.path))
        self.ax_.plot(at, self.path, color=CLEAN, label="bets against the stream")
        self.ax_.axhline(
            limit,
            color=ADVERSARIAL,
            linestyle="--",
            label=f"alarm (ever by chance: at most {self.level:g})",
        )
        over = np.flatnonzero(self.path >= limit)
        if len(over):
            self.ax_.plot(at[over[0]], self.path[over[0]], "o", color=ADVERSARIAL)
        top = max(limit, self.path.max(initial=0.0))
        bottom = min(-1.0, self.path.min(initial=0.0) - 0.1)
        self.ax_.set_ylim(bottom, top + 0.3 * (top - bottom))  # a place for the legend
        self.ax_.set_xlabel("images since the calibration")
        self.ax_.set_ylabel("capital made of 1 (log10)")
        self.ax_.legend(frameon=False, loc="upper left")
        return self
