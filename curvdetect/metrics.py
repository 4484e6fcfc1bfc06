"""Detection figures with their 95 % intervals; scikit-learn and SciPy do the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

__all__ = ["Figure", "auroc", "mean_norm", "share", "tpr_at_fpr"]

_N_RESAMPLES = 1000


class Figure(NamedTuple):
    """A number and its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        Estimate and ends of the interval.
    """

    value: float
    low: float
    high: float


def auroc(clean: npt.ArrayLike, adversarial: npt.ArrayLike, *, seed: int = 0) -> Figure:
    """Area under the ROC curve, with a bootstrap interval.

    Parameters
    ----------
    clean, adversarial : array of shape (n,)
        Scores; larger means more likely adversarial.
    seed : int, default=0
        Of the bootstrap.

    Returns
    -------
    Figure
        Clean and adversarial scores are resampled separately, 1,000 times
        (percentile interval).

    Examples
    --------
    >>> from curvdetect.metrics import auroc
    >>> auroc([0.0, 1.0, 2.0], [3.0, 4.0]).value
    1.0
    """

    def area(clean: npt.NDArray[Any], adversarial: npt.NDArray[Any]) -> float:
        truth = np.repeat([0, 1], [len(clean), len(adversarial)])
        return float(roc_auc_score(truth, np.concatenate([clean, adversarial])))

    return _bootstrap(area, clean, adversarial, seed)


def tpr_at_fpr(
    clean: npt.ArrayLike, adversarial: npt.ArrayLike, fpr: float, *, seed: int = 0
) -> Figure:
    """Return the detection rate where at most a share `fpr` of the clean is flagged.

    Parameters
    ----------
    clean, adversarial : array of shape (n,)
        Scores; larger means more likely adversarial.
    fpr : float
        False-positive rate; with n clean scores nothing below 1/n can be told apart.
    seed : int, default=0
        Of the bootstrap.

    Returns
    -------
    Figure
        With a bootstrap interval as in :func:`auroc`.

    Examples
    --------
    >>> from curvdetect.metrics import tpr_at_fpr
    >>> tpr_at_fpr([0.0, 1.0, 2.0, 3.0], [2.5, 4.0], 0.25).value
    1.0
    """

    def rate(clean: npt.NDArray[Any], adversarial: npt.NDArray[Any]) -> float:
        truth = np.repeat([0, 1], [len(clean), len(adversarial)])
        scores = np.concatenate([clean, adversarial])
        reached, detected, _ = roc_curve(truth, scores, drop_intermediate=False)
        return float(detected[reached <= fpr + 1e-12].max())

    return _bootstrap(rate, clean, adversarial, seed)


def share(hits: npt.ArrayLike) -> Figure:
    """Share of true values, with Wilson's interval.

    Parameters
    ----------
    hits : array of bool of shape (n,)
        Outcomes.

    Returns
    -------
    Figure
        NaN if there are no outcomes.

    Examples
    --------
    >>> from curvdetect.metrics import share
    >>> share([True, True, False, True]).value
    0.75
    """
    hits = np.asarray(hits, dtype=bool)
    if not hits.size:
        return Figure(np.nan, np.nan, np.nan)
    test = stats.binomtest(int(hits.sum()), hits.size)
    interval = test.proportion_ci(method="wilson")
    return Figure(float(hits.mean()), float(interval.low), float(interval.high))


def mean_norm(norms: npt.ArrayLike) -> Figure:
    """Mean with the interval of Student's t.

    Parameters
    ----------
    norms : array of shape (n,)
        At least two numbers.

    Returns
    -------
    Figure
        In the units of `norms`.

    Examples
    --------
    >>> from curvdetect.metrics import mean_norm
    >>> mean_norm([1.0, 2.0, 3.0]).value
    2.0
    """
    norms = np.asarray(norms, dtype=np.float64)
    half = stats.sem(norms) * stats.t.ppf(0.975, len(norms) - 1)
    mean = float(norms.mean())
    return Figure(mean, float(mean - half), float(mean + half))


def _bootstrap(
    statistic: Callable[..., float],
    clean: npt.ArrayLike,
    adversarial: npt.ArrayLike,
    seed: int,
) -> Figure:
    samples = np.asarray(clean, dtype=np.float64), np.asarray(adversarial, np.float64)
    value = statistic(*samples)
    result = stats.bootstrap(
        samples,
        statistic,
        vectorized=False,
        n_resamples=_N_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Figure(value, float(interval.low), float(interval.high))
