"""The report's own measure, to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from curvdetect.geometry import Pairs, goldman_curvature
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array

__all__ = ["goldman_features"]

#: The report's step along the pixel axes.
_STEP = 0.1


def goldman_features(model: TorchModel, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Measure every boundary the report's way: at the image, along the pixel axes.

    Parameters
    ----------
    model : TorchModel
        The network.
    X : ndarray of shape (n, *input_shape)
        Images.

    Returns
    -------
    ndarray of shape (n, n_classes)
        In 1 / input units, NaN for the predicted class. Cost: see
        :func:`curvdetect.geometry.goldman_curvature`, for each of the other classes.
    """
    features = np.full((len(X), model.n_classes), np.nan)
    with model.evaluating(), tqdm(total=len(X), unit="image", desc="Goldman") as bar:
        done = 0
        for x in model.split(model.to_tensor(X), 16):
            logits = model.logits(x)
            order = logits.argsort(dim=1, descending=True)
            pairs = Pairs(order[:, 0], order[:, 1:])
            curvature = goldman_curvature(
                pairs.margin(model.logits),
                pairs.rows(x),
                step=_STEP,
                batch_size=model.rows_per_batch(x[:1]),
            )
            rows = done + np.arange(len(x))[:, None]
            features[rows, pairs.classes.cpu().numpy()] = as_array(
                pairs.by_point(curvature)
            )
            done += len(x)
            bar.update(len(x))
    return features
