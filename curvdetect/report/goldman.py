"""The report's own measure, to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from curvdetect.geometry import goldman_curvature
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
    k = model.n_classes - 1
    with model.evaluating(), tqdm(total=len(X), unit="image", desc="Goldman") as bar:
        done = 0
        for x in model.split(model.to_tensor(X), 16):
            logits = model.logits(x)
            order = logits.argsort(dim=1, descending=True)
            classes = order[:, 1:]
            margin = model.margin(order[:, 0].repeat_interleave(k), classes.flatten())
            curvature = goldman_curvature(
                margin,
                x.repeat_interleave(k, dim=0),
                step=_STEP,
                batch_size=model.rows_per_batch(x[:1]),
            )
            rows = done + np.arange(len(x))[:, None]
            features[rows, classes.cpu().numpy()] = as_array(curvature.reshape(-1, k))
            done += len(x)
            bar.update(len(x))
    return features
