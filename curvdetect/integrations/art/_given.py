"""What users of ART give to a detector: labels in their forms, images out of bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect._base.warn import warn
from curvdetect.network import TorchModel

__all__ = ["adversarial_rows", "warn_of_classes", "within"]

#: In parts of the range: so far beyond the bounds a value may lie, and is moved onto
#: them; images that lie further outside are in other units.
_SLIGHTLY = 0.1
#: So far outside a TorchModel takes a value for rounding.
_ROUNDING = 1e-5
#: Labels that agree so often with what the classifier predicts are its classes.
_CLASSES = 0.9


def adversarial_rows(y: Any, n: int) -> npt.NDArray[np.bool_]:
    """Return which of n images are adversarial, by labels as ART has them.

    Parameters
    ----------
    y : array of shape (n,), (n, 1) or (n, 2), or None
        0 clean, 1 adversarial; or one-hot. None: all are clean.
    n : int
        How many images there are.

    Returns
    -------
    ndarray of shape (n,), bool
        True for adversarial ones.

    Raises
    ------
    ValueError
        If the labels are something else, such as classes, or none is clean.
    """
    if y is None:
        return np.zeros(n, dtype=np.bool_)
    labels = np.asarray(y)
    two = np.isin(labels, (0, 1)).all()
    if labels.shape == (n, 2) and two and (labels.sum(axis=1) == 1).all():
        labels = labels[:, 1]
    elif labels.shape == (n, 1):
        labels = labels[:, 0]
    if labels.shape != (n,) or not two:
        raise ValueError(
            "y must be 0 for clean and 1 for adversarial images, one number or one-hot "
            f"row for each of the {n}; got shape {labels.shape} and the values "
            f"{np.unique(labels)[:5]}. Classes are not asked for: leave y out where "
            "all images are clean"
        )
    if n and labels.all():
        raise ValueError(f"y must hold clean images, 0; got 1 for each of the {n}")
    return labels.astype(np.bool_)


def warn_of_classes(
    model: TorchModel, images: npt.NDArray[Any], adversarial: npt.NDArray[np.bool_]
) -> None:
    """Warn where labels of two kinds are those that the network predicts.

    Parameters
    ----------
    model : TorchModel
        The network.
    images : ndarray of shape (n, *input_shape)
        All images.
    adversarial : ndarray of shape (n,), bool
        Which are said to be adversarial.

    Warns
    -----
    UserWarning
        If nine of ten agree.
    """
    if not adversarial.any():
        return
    agree = float((model.predict(images) == adversarial).mean())
    if agree > _CLASSES:
        warn(
            f"y is what the classifier predicts for {agree:.0%} of the images: are "
            "these their classes? y must be 0 for clean and 1 for adversarial images; "
            "leave it out where all are clean"
        )


def within(x: npt.ArrayLike, bounds: tuple[float, float] | None) -> npt.NDArray[Any]:
    """Return images of which what is slightly out of bounds was moved onto these.

    Parameters
    ----------
    x : array of shape (n, *input_shape)
        Images.
    bounds : (float, float) or None
        Of the network; None for none.

    Returns
    -------
    ndarray of shape (n, *input_shape)
        What lies further outside is left to the network to refuse.

    Warns
    -----
    UserWarning
        If something was moved.
    """
    images = np.asarray(x)
    if bounds is None or images.dtype.kind not in "fiu" or not images.size:
        return images
    low, high = bounds
    beyond = max(low - float(images.min()), float(images.max()) - high) / (high - low)
    if not _ROUNDING < beyond <= _SLIGHTLY:
        return images
    outside = ((images < low) | (images > high)).reshape(len(images), -1).any(axis=1)
    warn(
        f"{outside.sum()} of {len(images)} images lie outside clip_values, {bounds}, "
        f"by up to {beyond * (high - low):.2g}: their values are moved onto these"
    )
    return images.clip(low, high)
