"""Clean and adversarial images in one set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["LabelledSet"]


class LabelledSet(NamedTuple):
    """Clean and adversarial images in one set, as cross-validation takes them.

    Attributes
    ----------
    X : ndarray of shape (n_samples, *input_shape)
        Clean images, then adversarial ones.
    y : ndarray of shape (n_samples,), int64
        0 clean, 1 adversarial.
    groups : ndarray of shape (n_samples,), int64
        The same for an image and what was made of it; for ``GroupKFold`` and others,
        so that both are in the same fold.
    original_label, predicted_label : ndarray of shape (n_samples,), int64
        Label before and after the attack; the same for clean images.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    original_label: npt.NDArray[np.int64]
    predicted_label: npt.NDArray[np.int64]
