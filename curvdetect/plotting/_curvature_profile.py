"""Ordered principal curvatures of the boundaries around images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect._base.extras import require
from curvdetect.geometry import ProductMethod, principal_curvatures
from curvdetect.network import TorchModel, find_nearest_boundaries
from curvdetect.network.arrays import as_array
from curvdetect.plotting._axes import axes_or_new

__all__ = ["CurvatureProfileDisplay"]


class CurvatureProfileDisplay:
    """Principal curvatures of the boundaries around images, in descending order.

    Each line is the mean over images of the k-th largest curvature of one boundary,
    the boundaries ordered by distance.

    Parameters
    ----------
    curvatures : array of shape (n_images, n_boundaries, m)
        Principal curvatures, in 1 / input units, in any order along the last axis; NaN
        where there is no boundary.

    Attributes
    ----------
    profile_ : ndarray of shape (n_boundaries, m)
        Mean over images of the ordered curvatures.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect.plotting import CurvatureProfileDisplay
    >>> curvatures = np.array([[[0.0, -2.0, 1.0]], [[3.0, 0.0, -4.0]]])
    >>> CurvatureProfileDisplay(curvatures=curvatures).profile_
    array([[ 2.,  0., -3.]])
    """

    def __init__(self, *, curvatures: npt.ArrayLike) -> None:
        values = np.asarray(curvatures, dtype=np.float64)
        if values.ndim != 3:
            raise ValueError(
                "curvatures must have shape (n_images, n_boundaries, m); got shape "
                f"{values.shape}"
            )
        missing = np.isnan(values).any(axis=2)
        weight = np.where(missing, 0.0, 1.0)[:, :, None]
        ordered = -np.sort(-np.where(weight > 0, values, 0), axis=2)
        with np.errstate(invalid="ignore"):  # no image has that boundary: NaN
            self.profile_ = (weight * ordered).sum(axis=0) / weight.sum(axis=0)

    @classmethod
    def from_model(
        cls,
        model: TorchModel,
        X: npt.ArrayLike,
        *,
        n_boundaries: int | None = None,
        method: ProductMethod = "gradient",
        step: float = 0.1,
        ax: Any = None,
    ) -> CurvatureProfileDisplay:
        """Measure images and draw.

        Parameters
        ----------
        model : TorchModel
            The network.
        X : array of shape (n_images, *input_shape)
            Images.
        n_boundaries : int or None, default=None
            How many boundaries, the nearest first; None for all.
        method, step
            As in :func:`curvdetect.geometry.principal_curvatures`. The cost is d - 1
            Hessian-vector products a boundary and image.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        CurvatureProfileDisplay
            Drawn.
        """
        nearest = find_nearest_boundaries(model, X, n_boundaries=n_boundaries)
        with model.evaluating():
            values = principal_curvatures(
                nearest.margin,
                nearest.points,
                method=method,
                step=step,
                directions=False,
                batch_size=model.rows_per_batch(nearest.images[:1]),
            ).values
        values[~nearest.found] = np.nan
        shape = len(model.to_tensor(X)), -1, values.shape[1]
        return cls.from_predictions(as_array(values.reshape(shape)), ax=ax)

    @classmethod
    def from_predictions(
        cls, curvatures: npt.ArrayLike, *, ax: Any = None
    ) -> CurvatureProfileDisplay:
        """Draw curvatures that were measured already.

        Parameters
        ----------
        curvatures : array of shape (n_images, n_boundaries, m)
            Principal curvatures.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        CurvatureProfileDisplay
            Drawn.
        """
        return cls(curvatures=curvatures).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> CurvatureProfileDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        CurvatureProfileDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        n_boundaries, m = self.profile_.shape
        colours = require("matplotlib", extra="plot").colormaps["viridis"]
        for rank, line in enumerate(self.profile_):
            self.ax_.plot(
                np.arange(1, m + 1),
                line,
                color=colours(0.9 * rank / max(n_boundaries - 1, 1)),
                lw=1.2,
                label={0: "nearest", n_boundaries - 1: "farthest"}.get(rank),
            )
        self.ax_.axhline(0, color="0.4", lw=0.8)
        self.ax_.set_xlabel("principal curvature, by size")
        self.ax_.set_ylabel("curvature (1 / input units)")
        if n_boundaries > 1:
            self.ax_.legend(frameon=False, title="boundary")
        return self
