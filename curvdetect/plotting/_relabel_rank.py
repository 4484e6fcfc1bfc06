"""Where the original label comes among the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.estimators.relabeler import CurvatureRelabeler
from curvdetect.plotting._axes import ADVERSARIAL, axes_or_new, rank_ticks

__all__ = ["RelabelRankDisplay"]


class RelabelRankDisplay:
    """Where the original label comes among the classes, by average curvature.

    Parameters
    ----------
    ranks : array of shape (n_images,)
        1 where it came first.
    n_classes : int
        Number of classes; the predicted one cannot be the original, so ranks end at
        n_classes - 1.

    Attributes
    ----------
    share_ : ndarray of shape (n_classes - 1,)
        Share of the images at each rank.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> from curvdetect.plotting import RelabelRankDisplay
    >>> RelabelRankDisplay(ranks=[1, 1, 2, 1], n_classes=3).share_
    array([0.75, 0.25])
    """

    def __init__(self, *, ranks: npt.ArrayLike, n_classes: int) -> None:
        counts = np.bincount(np.asarray(ranks), minlength=n_classes)[1:n_classes]
        self.share_ = counts / np.size(ranks)

    @classmethod
    def from_estimator(
        cls,
        relabeler: CurvatureRelabeler,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        ax: Any = None,
    ) -> RelabelRankDisplay:
        """Rank original labels and draw.

        Parameters
        ----------
        relabeler : CurvatureRelabeler
            Fitted.
        X : array of shape (n_images, n_classes)
            Curvatures.
        y : array of shape (n_images,)
            Original labels.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RelabelRankDisplay
            Drawn.
        """
        n_classes = len(relabeler.classes_)
        return cls.from_predictions(relabeler.rank(X, y), n_classes, ax=ax)

    @classmethod
    def from_predictions(
        cls, ranks: npt.ArrayLike, n_classes: int, *, ax: Any = None
    ) -> RelabelRankDisplay:
        """Draw ranks that are known already.

        Parameters
        ----------
        ranks : array of shape (n_images,)
            1 where the original label came first.
        n_classes : int
            Number of classes.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RelabelRankDisplay
            Drawn.
        """
        return cls(ranks=ranks, n_classes=n_classes).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> RelabelRankDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RelabelRankDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        rank = np.arange(1, len(self.share_) + 1)
        self.ax_.bar(rank, self.share_, color=ADVERSARIAL)
        self.ax_.set_ylim(0, 1)
        self.ax_.set_xlabel("rank of the original label")
        self.ax_.set_ylabel("share of adversarial images")
        rank_ticks(self.ax_, len(self.share_))
        return self
