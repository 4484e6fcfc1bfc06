"""What a learned detector says of itself."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from curvdetect._base.checks import check_choice
from curvdetect.estimators.self_test import SelfTest
from curvdetect.plotting._axes import ADVERSARIAL, CLEAN, axes_or_new

__all__ = ["SelfTestDisplay"]

_LABELS = {
    "detected": "share detected",
    "auroc": "AUROC",
    "relabelled": "share relabelled right",
}


class SelfTestDisplay:
    """What a learned detector does on each attack, with 95 % intervals.

    Parameters
    ----------
    self_test : SelfTest
        Of a detector, or of :func:`curvdetect.assess_guard`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> from curvdetect.estimators import SelfTest, Tried
    >>> from curvdetect.plotting import SelfTestDisplay
    >>> numbers = [0.9, 0.8, 0.95, 0.6, 0.5, 0.7, 0.8, 0.7, 0.9, 0.01, 0.85]
    >>> row = Tried("PGD, linf 0.1", "gradient steps", 0.1, 2.0, 50, 40, *numbers)
    >>> display = SelfTestDisplay(SelfTest([row], 0.01)).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['PGD, linf 0.1']
    """

    def __init__(self, self_test: SelfTest) -> None:
        self.self_test = self_test

    @classmethod
    def from_estimator(cls, guard: Any, *, ax: Any = None) -> SelfTestDisplay:
        """Draw the self-test of a guard.

        Parameters
        ----------
        guard : LearnedDetector or GuardedClassifier
            Fitted, with its self-test.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        SelfTestDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the guard has no self-test.
        """
        known = guard.self_test_
        if known is None:
            raise ValueError(
                "guard must have a self-test: a learned detector, fitted with "
                f"self_test=True; got {guard!r}"
            )
        return cls(known).plot(ax=ax)

    def plot(
        self,
        figure: Literal["detected", "auroc", "relabelled"] = "detected",
        *,
        ax: Any = None,
    ) -> SelfTestDisplay:
        """Draw one figure for all attacks.

        Parameters
        ----------
        figure : {"detected", "auroc", "relabelled"}, default="detected"
            Which.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        SelfTestDisplay
            Itself.
        """
        check_choice("figure", figure, tuple(_LABELS))
        new = ax is None
        self.ax_, self.figure_ = axes_or_new(ax)
        rows = self.self_test.rows
        if new:
            self.figure_.set_layout_engine("constrained")
            self.figure_.set_size_inches(6.4, 1.2 + 0.24 * len(rows))
        value, low, high = (
            np.array([getattr(row, figure + end) for row in rows])
            for end in ("", "_low", "_high")
        )
        place = np.arange(len(rows))[::-1]
        self.ax_.errorbar(
            value,
            place,
            xerr=(value - low, high - value),
            fmt="o",
            color=ADVERSARIAL,
            ecolor=ADVERSARIAL,
        )
        if figure == "detected":
            noise = [row.flagged_noise for row in rows]
            self.ax_.plot(
                noise, place, "|", color=CLEAN, ms=9, label="noise as long, flagged"
            )
            self.ax_.axvline(self.self_test.target_fpr, color=CLEAN, lw=0.8, ls=":")
            self.ax_.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
        self.ax_.set_yticks(place, [row.attack for row in rows])
        self.ax_.set_xlim(-0.02, 1.02)
        self.ax_.set_xlabel(_LABELS[figure])
        return self
