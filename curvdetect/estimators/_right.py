"""Which of the images given to `fit` count: those that the network gets right."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect._base.warn import warn
from curvdetect.network import TorchModel
from curvdetect.network.arrays import plain_array
from curvdetect.network.checks import FEW_RIGHT, doubts_of_labels

__all__ = ["labels_of", "right_ones"]

_LOG = logging.getLogger(__name__)


def labels_of(y: Any, n: int) -> npt.NDArray[Any]:
    """Return labels as an array, one for each of n images."""
    labels = plain_array(y, "y")
    if labels.shape != (n,):
        raise ValueError(
            f"y must hold one number for each of the {n} images; got shape "
            f"{labels.shape}"
        )
    return labels


def right_ones(
    model: TorchModel, predicted: npt.NDArray[np.int64], y: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.bool_], str]:
    """Return which images the network gets right, and words for those it does not.

    All, where it gets none right: labels that are numbered otherwise tell nothing.
    """
    if y.dtype.kind not in "iufb":
        raise ValueError(
            f"Unknown label type: y must hold the position of each class, 0 to "
            f"{model.n_classes - 1}; got dtype {y.dtype}"
        )
    right = predicted == y
    n, n_right = len(right), int(right.sum())
    _LOG.info("the network gets %d of %d images right", n_right, n)
    doubts = doubts_of_labels(predicted, y, model.n_classes)
    if not n_right:
        warn(
            f"the network gets none of these images right, of {n}, so all are "
            f"taken as clean; {doubts}"
        )
        return np.ones(n, dtype=bool), ""
    if n_right < FEW_RIGHT * n:
        warn(
            f"the network gets only {n_right} of the {n} images right, and the "
            f"others are left out; {doubts}"
        )
    if n_right == n:
        return right, ""
    return right, (
        f" of the {n} given: the others are left out, because the network gets "
        f"them wrong; {doubts}"
    )
