"""Features and scores on a cluster (extra "dask"): a block of images is a task."""

from __future__ import annotations

import functools
import logging
import os
import platform
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from curvdetect._base.extras import require
from curvdetect.estimators._image_detector import image_detector
from curvdetect.estimators.featurizer import CurvatureFeaturizer

__all__ = ["score_samples", "transform"]

_LOG = logging.getLogger(__name__)
#: Bytes: what a batch's tensors stay below.
_HIGH = 2**24

_dask = require("dask", extra="dask")
_array = require("dask.array", extra="dask")


def transform(featurizer: CurvatureFeaturizer, X: Any) -> Any:
    """Transform the images of a dask array, lazily.

    Nothing is measured until the result is computed. Images are independent of each
    other, so the result is that of ``featurizer.transform``, whatever the blocks and
    the workers, and a block whose worker dies is measured again on another. The
    featurizer is one task: each worker receives it, with the network, once.

    On Linux, change dask's default setting of malloc before the workers start, as the
    guide shows: under that default, ours were less than half as fast. A worker that has
    it says so in its log.

    Parameters
    ----------
    featurizer : CurvatureFeaturizer
        Fitted. The class of the network must be importable on the workers.
    X : dask.array.Array of shape (n_samples, *input_shape) or (n_samples, d)
        Images; blocks of some hundred are a good size. A folder of .npy files becomes
        such an array by ``dask.array.from_npy_stack``.

    Returns
    -------
    dask.array.Array of shape (n_samples, n_columns)
        In blocks of the same rows.

    Raises
    ------
    TypeError
        If X is not a dask array.
    ValueError
        If the number of rows of a block is unknown.

    Examples
    --------
    >>> import dask.array as da
    >>> from curvdetect import CurvatureFeaturizer
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.integrations.dask import transform
    >>> from curvdetect.study.networks import trained_model
    >>> X, y = load_fashion_mnist_sample()
    >>> model = trained_model("fashion-mnist")
    >>> featurizer = CurvatureFeaturizer(model, n_boundaries=1, random_state=0)
    >>> featurizer = featurizer.fit(X[:50])
    >>> features = transform(featurizer, da.from_array(X[:60], chunks=(20, -1, -1, -1)))
    >>> features.shape, features.chunks[0]
    ((60, 10), (20, 20, 20))
    >>> features.compute(scheduler="synchronous").shape
    (60, 10)
    """
    check_is_fitted(featurizer)
    X = _checked(X)
    width = len(featurizer.get_feature_names_out())
    dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    return _by_blocks(featurizer, "transform", X, (width,), dtype)


def score_samples(detector: Any, X: Any) -> Any:
    """Score the images of a dask array, lazily.

    Parameters
    ----------
    detector : LearnedDetector, VotingDetector, GuardedClassifier or CurvatureGuard
        Fitted, with a learned detector or one that votes. The classes of the networks
        must be importable on the workers.
    X : dask.array.Array of shape (n_samples, *input_shape) or (n_samples, d)
        Images, as in :func:`transform`.

    Returns
    -------
    dask.array.Array of shape (n_samples,)
        As of ``detector.score_samples``: flagged is what is above its ``threshold_``.

    Raises
    ------
    TypeError
        If X is not a dask array, or there is neither a learned detector nor one that
        votes.
    ValueError
        If the number of rows of a block is unknown.

    Examples
    --------
    >>> import dask.array as da
    >>> from curvdetect import LearnedDetector
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.integrations.dask import score_samples
    >>> from curvdetect.study.networks import trained_model
    >>> X, y = load_fashion_mnist_sample()
    >>> model = trained_model("fashion-mnist")
    >>> detector = LearnedDetector(
    ...     model, target_fpr=0.1, self_test=False, random_state=0
    ... ).fit(X[:90], y[:90])
    >>> scores = score_samples(detector, da.from_array(X[90:150], chunks=20))
    >>> flagged = scores > detector.threshold_
    >>> flagged.compute(scheduler="synchronous").shape
    (60,)
    """
    scores = image_detector(detector)
    return _by_blocks(scores, "score_samples", _checked(X), (), np.dtype(np.float64))


def _checked(X: Any) -> Any:
    """Return images of which each block holds whole ones."""
    if not isinstance(X, _array.Array):
        raise TypeError(
            "X must be a dask array, such as dask.array.from_array(X, chunks=(500, -1, "
            f"-1, -1)); got {type(X).__name__}"
        )
    if any(np.isnan(n) for n in X.chunks[0]):
        raise ValueError(
            "X must have blocks of known numbers of rows; call X.compute_chunk_sizes()"
        )
    return X.rechunk({axis: -1 for axis in range(1, X.ndim)})


def _by_blocks(
    estimator: Any, method: str, X: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Any:
    """Call a method with each block; rows have a shape and a type."""
    sent = _dask.delayed(estimator, pure=True)
    blocks = [
        _array.from_delayed(
            _dask.delayed(_of_block)(sent, method, block), (n_rows, *shape), dtype
        )
        for n_rows, block in zip(X.chunks[0], X.to_delayed().ravel(), strict=True)
    ]
    return _array.concatenate(blocks)


def _of_block(
    estimator: Any, method: str, images: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    _warn_of_malloc()
    return np.asarray(getattr(estimator, method)(images))


@functools.cache
def _warn_of_malloc() -> None:
    """Say once if the memory of every large tensor is given back and taken again.

    Dask sets one of two thresholds, to a small value; once one is set, glibc no longer
    adapts the other.
    """
    thresholds = {
        name: os.environ.get(name)
        for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    }
    adapted = not any(thresholds.values())
    high = all(v and v.isdigit() and int(v) >= _HIGH for v in thresholds.values())
    if not adapted and not high and platform.libc_ver()[0] == "glibc":
        _LOG.warning(
            "large tensors are slow under %s. Before the workers start, raise both in "
            "dask's setting distributed.nanny.pre-spawn-environ, for instance to "
            "268435456 and 33554432",
            thresholds,
        )
