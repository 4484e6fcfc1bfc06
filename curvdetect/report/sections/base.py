"""What a section of a report is, and what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from curvdetect._base.extras import require
from curvdetect.attacks import AdversarialSet
from curvdetect.network import TorchModel

__all__ = ["Measured", "Section", "drawn", "joined"]


@dataclass(frozen=True)
class Measured:
    """Images before and after an attack, and what one way of measuring makes of them.

    Attributes
    ----------
    title : str
        Of this way of measuring.
    model : TorchModel
        The network that was attacked.
    images : AdversarialSet
        What it was attacked with.
    clean : ndarray of shape (n_clean, n_columns)
        Features of the clean images, or the images themselves: what the detector takes.
    adversarial : ndarray of shape (n_adversarial, n_columns)
        The same of the adversarial ones.
    detector : CurvatureThresholdDetector or LearnedDetector
        Fitted.
    relabeler : CurvatureRelabeler, or anything that predicts labels
        Fitted.
    """

    title: str
    model: TorchModel
    images: AdversarialSet
    clean: npt.NDArray[Any]
    adversarial: npt.NDArray[Any]
    detector: Any
    relabeler: Any

    def pictures(
        self, natural: npt.NDArray[np.int64], perturbed: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return features of some images as they were, and of others after the attack.

        Parameters
        ----------
        natural, perturbed : ndarray of shape (k,), int64
            Positions in `adversarial`; of `natural` the clean originals are taken.

        Returns
        -------
        (ndarray, ndarray), each of shape (k, n_columns)
            Of the natural pictures and of the perturbed ones.
        """
        return self.clean[self.images.source[natural]], self.adversarial[perturbed]


class Section(Protocol):
    """A picture of a report: a module with these names.

    Attributes
    ----------
    SIZE : (float, float)
        Width and height in inches.
    CAPTION : str
        What there is to see, for a page on images of ten classes.
    """

    SIZE: tuple[float, float]
    CAPTION: str

    def draw(self, ax: Any, measured: Measured) -> None:
        """Draw in these axes."""


def drawn(section: Section, *measured: Measured) -> Any:
    """Draw a section in a figure of its own, for ways of measuring side by side.

    Parameters
    ----------
    section : Section
        A module of this folder.
    *measured : Measured
        If there are several, each has its title above it.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved; pyplot does not know it.
    """
    width, height = section.SIZE
    new_figure = require("matplotlib.figure", extra="plot").Figure
    figure = new_figure(figsize=(width * len(measured), height), layout="constrained")
    axes = figure.subplots(1, len(measured), squeeze=False)[0]
    for ax, each in zip(axes, measured, strict=True):
        section.draw(ax, each)
        if len(measured) > 1:
            ax.set_title(each.title)
    return figure


def joined(
    clean: npt.NDArray[Any], adversarial: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Put features of clean and of adversarial images together, as detectors take them.

    Parameters
    ----------
    clean, adversarial : ndarray of shape (n, n_columns), (m, n_columns)
        Features.

    Returns
    -------
    X : ndarray of shape (n + m, n_columns)
        Both.
    y : ndarray of shape (n + m,), int64
        0 for the clean ones and 1 for the others.
    """
    return (
        np.concatenate([clean, adversarial]),
        np.repeat([0, 1], [len(clean), len(adversarial)]),
    )
