"""Ordered profiles of several networks in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.plotting._axes import COLOURS, axes_or_new

__all__ = ["ProfileComparisonDisplay"]


class ProfileComparisonDisplay:
    """Profiles of curvature, or of Hessian eigenvalues, before and after something.

    Lines are medians over images of the k-th largest value, bands hold the middle half.

    Parameters
    ----------
    profiles : mapping of str to array of shape (n_images, m)
        Values of each image in any order, by the name of the network.
    quantity : str, default="curvature (1 / input units)"
        What they are, for the label of the axis.

    Attributes
    ----------
    quartiles_ : dict of str to ndarray of shape (3, m)
        Quartiles over images of the ordered values.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> from curvdetect.plotting import ProfileComparisonDisplay
    >>> display = ProfileComparisonDisplay(
    ...     profiles={"before": [[2.0, -4.0, 0.0]], "after": [[1.0, -1.0, 0.0]]}
    ... )
    >>> display.quartiles_["before"][1]
    array([ 2.,  0., -4.])
    """

    def __init__(
        self,
        *,
        profiles: Mapping[str, npt.ArrayLike],
        quantity: str = "curvature (1 / input units)",
    ) -> None:
        self.quartiles_ = {
            name: np.nanquantile(
                -np.sort(-np.asarray(values, dtype=np.float64), axis=1),
                [0.25, 0.5, 0.75],
                axis=0,
            )
            for name, values in profiles.items()
        }
        self.quantity_ = quantity

    @classmethod
    def from_predictions(
        cls,
        profiles: Mapping[str, npt.ArrayLike],
        *,
        quantity: str = "curvature (1 / input units)",
        ax: Any = None,
    ) -> ProfileComparisonDisplay:
        """Draw profiles that were measured already.

        Parameters
        ----------
        profiles : mapping of str to array of shape (n_images, m)
            Values of each image, by the name of the network.
        quantity : str, default="curvature (1 / input units)"
            What they are.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        ProfileComparisonDisplay
            Drawn.
        """
        return cls(profiles=profiles, quantity=quantity).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> ProfileComparisonDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        ProfileComparisonDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        for (name, lines), colour in zip(self.quartiles_.items(), cycle(COLOURS)):
            rank = np.arange(1, lines.shape[1] + 1)
            self.ax_.plot(rank, lines[1], color=colour, lw=1.2, label=name)
            self.ax_.fill_between(rank, lines[0], lines[2], color=colour, alpha=0.2)
        self.ax_.axhline(0, color="0.4", lw=0.8)
        self.ax_.set_yscale("symlog", linthresh=self._linear_threshold())
        self.ax_.set_xlabel("by size")
        self.ax_.set_ylabel(self.quantity_)
        self.ax_.legend(frameon=False)
        return self

    def _linear_threshold(self) -> float:
        """Return a thousandth of the largest value: profiles differ by magnitudes."""
        largest = max(np.nanmax(np.abs(lines[1])) for lines in self.quartiles_.values())
        return float(largest) / 1000 or 1.0
