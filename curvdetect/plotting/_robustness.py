"""How far images are from another class, in several senses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curvdetect.geometry import (
    find_adversarial_perturbation,
    random_direction_robustness,
    random_directions,
)
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array
from curvdetect.plotting._axes import COLOURS, axes_or_new

__all__ = ["FoolingRateDisplay", "RobustnessDisplay"]

_MARKERS = "osD^v"


class RobustnessDisplay:
    """Histograms of the norms that it takes to change the class of images.

    Parameters
    ----------
    norms : mapping of str to array of shape (n,)
        L2 norms in input units, by what they are; those that are infinite or zero are
        left out, and counted in the legend.

    Attributes
    ----------
    norms_ : dict of str to ndarray
        As given.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> from curvdetect.plotting import RobustnessDisplay
    >>> display = RobustnessDisplay.from_predictions(
    ...     {"adversarial": [0.3, 0.4, 0.5], "random": [8.0, 9.0, float("inf")]}
    ... )
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['adversarial, median 0.4', 'random, median 9 (33 % not found)']
    """

    def __init__(self, *, norms: Mapping[str, npt.ArrayLike]) -> None:
        self.norms_ = {
            name: np.asarray(values, dtype=np.float64).ravel()
            for name, values in norms.items()
        }

    @classmethod
    def from_model(
        cls,
        model: TorchModel,
        X: npt.ArrayLike,
        *,
        n_directions: int = 16,
        max_norm: float | None = None,
        random_state: int = 0,
        ax: Any = None,
    ) -> RobustnessDisplay:
        """Measure images and draw; perturbed images may leave the model's bounds.

        Parameters
        ----------
        model : TorchModel
            The network.
        X : array of shape (n_images, *input_shape)
            Images.
        n_directions : int, default=16
            Random directions an image.
        max_norm : float, optional
            How far to look along them; the square root of the number of input values
            by default, which is the diagonal of [0, 1]^d.
        random_state : int, default=0
            Draws the directions.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RobustnessDisplay
            Drawn.
        """
        images = model.to_tensor(X)
        shape = images.shape[1:]
        reach = float(np.sqrt(np.prod(shape))) if max_norm is None else max_norm
        adversarial, random = [], []
        with model.evaluating():
            for x in model.split(images):
                size = model.rows_per_batch(x[:1])
                v = random_directions(
                    n_directions,
                    shape,
                    generator=torch.Generator().manual_seed(random_state),
                    dtype=x.dtype,
                    device=x.device,
                )
                found = find_adversarial_perturbation(model.logits, x, batch_size=size)
                adversarial.append(found.norms)
                random.append(
                    random_direction_robustness(
                        model.logits, x, v, max_norm=reach, batch_size=size
                    )
                )
        return cls.from_predictions(
            {
                "adversarial": as_array(torch.cat(adversarial)),
                "random direction": as_array(torch.cat(random)),
            },
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls, norms: Mapping[str, npt.ArrayLike], *, ax: Any = None
    ) -> RobustnessDisplay:
        """Draw norms that were measured already.

        Parameters
        ----------
        norms : mapping of str to array of shape (n,)
            L2 norms in input units.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RobustnessDisplay
            Drawn.
        """
        return cls(norms=norms).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> RobustnessDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RobustnessDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        every = np.concatenate(list(self.norms_.values()))
        shown = every[np.isfinite(every) & (every > 0)]
        ends = (shown.min(), shown.max()) if len(shown) else (0.1, 1.0)
        bins = np.geomspace(0.95 * ends[0], 1.05 * ends[1], 50)
        for (name, values), colour in zip(
            self.norms_.items(), cycle(COLOURS), strict=False
        ):
            label = f"{name}, median {np.median(values):.3g}"
            missing = np.mean(~np.isfinite(values))
            if missing:
                label += f" ({100 * missing:.0f} % not found)"
            if np.any(values == 0):
                label += f" ({100 * np.mean(values == 0):.0f} % zero)"
            drawn = values[np.isfinite(values) & (values > 0)]
            self.ax_.hist(
                drawn,
                bins=bins,
                weights=np.full(len(drawn), 1 / len(values)),
                color=colour,
                alpha=0.7,
                label=label,
            )
        self.ax_.set_xscale("log")
        self.ax_.set_xlabel("L2 norm that changes the class (input units)")
        self.ax_.set_ylabel("share")
        # Its entries are long: above the axes nothing is in their way.
        self.ax_.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return self


class FoolingRateDisplay:
    """How many images change their class, against the norm of the perturbation.

    Parameters
    ----------
    curves : mapping of str to (array of shape (m,), array of shape (m,))
        Norms in input units and fooling rates, by the kind of perturbation.
    p : {2, inf}, default=2
        Which norm, for the label of the axis.

    Attributes
    ----------
    curves_ : dict of str to (ndarray, ndarray)
        As given.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> from curvdetect.plotting import FoolingRateDisplay
    >>> display = FoolingRateDisplay.from_predictions(
    ...     {"adversarial": ([0.1, 1.0], [0.2, 1.0]), "random": ([1, 10], [0.0, 0.3])}
    ... )
    >>> display.ax_.get_xlabel()
    'L2 norm (input units)'
    """

    def __init__(
        self,
        *,
        curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
        p: float = 2,
    ) -> None:
        self.curves_ = {
            name: (np.asarray(norms), np.asarray(rates))
            for name, (norms, rates) in curves.items()
        }
        self.p_ = p

    @classmethod
    def from_predictions(
        cls,
        curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
        *,
        p: float = 2,
        ax: Any = None,
    ) -> FoolingRateDisplay:
        """Draw rates that were measured already.

        Parameters
        ----------
        curves : mapping of str to (array of shape (m,), array of shape (m,))
            Norms in input units and fooling rates.
        p : {2, inf}, default=2
            Which norm.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        FoolingRateDisplay
            Drawn.
        """
        return cls(curves=curves, p=p).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> FoolingRateDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        FoolingRateDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        styles = cycle(zip(COLOURS, _MARKERS, strict=True))
        for (name, (norms, rates)), (colour, marker) in zip(
            self.curves_.items(), styles, strict=False
        ):
            self.ax_.plot(norms, rates, color=colour, marker=marker, ms=4, label=name)
        self.ax_.set_xscale("log")
        self.ax_.set_ylim(-0.02, 1.02)
        name = "L-infinity" if self.p_ == np.inf else "L2"
        self.ax_.set_xlabel(f"{name} norm (input units)")
        self.ax_.set_ylabel("share of images with another class")
        self.ax_.legend(frameon=False)
        return self
