"""How much is certified, beside what it takes to fool the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.estimators.voting import Certified
from curvdetect.plotting._axes import ADVERSARIAL, CLEAN, axes_or_new

__all__ = ["CertificateDisplay"]


class CertificateDisplay:
    """The share of images certified, against the radius.

    Parameters
    ----------
    radius : array of shape (n,)
        Of each image, as ``certify`` gives them; 0 where nothing is certified.
    norms : array of shape (m,), optional
        Smallest L2 norms that fool the network alone: the share of images that it takes
        more than the radius to fool is drawn beside it.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> from curvdetect.plotting import CertificateDisplay
    >>> display = CertificateDisplay([0.0, 0.2, 0.4], norms=[0.1, 0.3]).plot()
    >>> display.ax_.get_xlabel()
    'L2 norm of a change (input units)'
    """

    def __init__(
        self, radius: npt.ArrayLike, norms: npt.ArrayLike | None = None
    ) -> None:
        self.radius = np.sort(np.asarray(radius, dtype=float))
        self.norms = None if norms is None else np.sort(np.asarray(norms, dtype=float))

    @classmethod
    def from_certified(
        cls, certified: Certified, *, norms: npt.ArrayLike | None = None, ax: Any = None
    ) -> CertificateDisplay:
        """Draw what a guard certified.

        Parameters
        ----------
        certified : Certified
            Of :meth:`curvdetect.VotingDetector.certify`, or of a guard with one.
        norms : array of shape (m,), optional
            Smallest L2 norms that fool the network alone.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        CertificateDisplay
            Drawn, with the level and the confidence in the title.
        """
        display = cls(certified.radius, norms).plot(ax=ax)
        display.ax_.set_title(
            f"within it, flagged with probability {1 - certified.level:g} "
            f"(confidence {certified.confidence:g})",
            fontsize="medium",
        )
        return display

    def plot(self, *, ax: Any = None) -> CertificateDisplay:
        """Draw the shares.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        CertificateDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        curves = [(self.radius, "certified: another label is flagged", CLEAN)]
        if self.norms is not None:
            label = "not fooled by the smallest found"
            curves.append((self.norms, label, ADVERSARIAL))
        right = max(
            (values[np.isfinite(values)].max(initial=0.0) for values, *_ in curves)
        )
        for values, label, colour in curves:
            steps = np.unique(values[(values > 0) & np.isfinite(values)])
            at = np.concatenate([[0.0], steps, [1.05 * right]])
            larger = len(values) - np.searchsorted(values, at, side="right")
            self.ax_.step(
                at,
                larger / max(len(values), 1),
                where="post",
                color=colour,
                label=label,
            )
        self.ax_.set_xlabel("L2 norm of a change (input units)")
        self.ax_.set_ylabel("share of images")
        self.ax_.set_ylim(0, 1.02)
        self.ax_.set_xlim(left=0)
        self.ax_.legend(frameon=False, loc="upper right")
        return self
