"""Average curvature of the boundaries, of clean and adversarial images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.plotting._axes import ADVERSARIAL, CLEAN, axes_or_new, rank_ticks

__all__ = ["AverageCurvatureDisplay"]


class AverageCurvatureDisplay:
    """Average curvature of the boundaries around clean and adversarial images.

    Per image the boundaries are ordered by curvature, the largest first. Lines are
    medians over images, bands hold the middle half.

    Parameters
    ----------
    clean, adversarial : array of shape (n_images, n_boundaries)
        Curvatures, in 1 / input units; NaN where there is no boundary.

    Attributes
    ----------
    clean_, adversarial_ : ndarray of shape (3, n_boundaries)
        Quartiles over images of the k-th largest curvature.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect.plotting import AverageCurvatureDisplay
    >>> display = AverageCurvatureDisplay(
    ...     clean=np.array([[-0.2, 0.0, np.nan]]),
    ...     adversarial=np.array([[0.1, 0.5, -0.1]]),
    ... )
    >>> display.clean_[1]
    array([ 0. , -0.2])
    """

    def __init__(self, *, clean: npt.ArrayLike, adversarial: npt.ArrayLike) -> None:
        self.clean_ = _ordered_quartiles(clean)
        self.adversarial_ = _ordered_quartiles(adversarial)

    @classmethod
    def from_estimator(
        cls,
        featurizer: CurvatureFeaturizer,
        clean: npt.ArrayLike,
        adversarial: npt.ArrayLike,
        *,
        ax: Any = None,
    ) -> AverageCurvatureDisplay:
        """Measure images and draw.

        Parameters
        ----------
        featurizer : CurvatureFeaturizer
            Fitted, for the feature "curvature" at one step alone.
        clean, adversarial : array of shape (n_images, *input_shape)
            Images.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        AverageCurvatureDisplay
            Drawn.
        """
        return cls.from_predictions(
            featurizer.transform(clean), featurizer.transform(adversarial), ax=ax
        )

    @classmethod
    def from_predictions(
        cls, clean: npt.ArrayLike, adversarial: npt.ArrayLike, *, ax: Any = None
    ) -> AverageCurvatureDisplay:
        """Draw curvatures that were measured already.

        Parameters
        ----------
        clean, adversarial : array of shape (n_images, n_boundaries)
            Curvatures.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        AverageCurvatureDisplay
            Drawn.
        """
        return cls(clean=clean, adversarial=adversarial).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> AverageCurvatureDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        AverageCurvatureDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        for quartiles, colour, marker, label in (
            (self.clean_, CLEAN, "o", "clean"),
            (self.adversarial_, ADVERSARIAL, "s", "adversarial"),
        ):
            rank = np.arange(1, quartiles.shape[1] + 1)
            self.ax_.plot(
                rank, quartiles[1], color=colour, marker=marker, ms=4, label=label
            )
            self.ax_.fill_between(
                rank, quartiles[0], quartiles[2], color=colour, alpha=0.2, lw=0
            )
        self.ax_.axhline(0, color="0.4", lw=0.8)
        self.ax_.set_xlabel("boundary, by curvature")
        self.ax_.set_ylabel("average curvature (1 / input units)")
        rank_ticks(self.ax_, self.clean_.shape[1])
        self.ax_.legend(frameon=False)
        return self


def _ordered_quartiles(curvature: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the quartiles over images of the k-th largest curvature."""
    ordered = -np.sort(-np.asarray(curvature, dtype=np.float64), axis=1)
    ordered = ordered[:, ~np.isnan(ordered).all(axis=0)]  # NaN was sorted last
    return np.nanquantile(ordered, [0.25, 0.5, 0.75], axis=0)
