"""Detection figures with their 95 % intervals, by SciPy; and the count of passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

__all__ = [
    "Estimate",
    "Passes",
    "auroc",
    "count_passes",
    "mean_norm",
    "proportion",
    "tpr_at_fpr",
]

_N_RESAMPLES = 1000
#: Resamples held at a time.
_BATCH = 100


class Estimate(NamedTuple):
    """A number and its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        Estimate and ends of the interval.
    """

    value: float
    low: float
    high: float


def auroc(
    clean: npt.ArrayLike, adversarial: npt.ArrayLike, *, seed: int = 0
) -> Estimate:
    """Area under the ROC curve, with a bootstrap interval.

    Parameters
    ----------
    clean, adversarial : array of shape (n,)
        Scores; larger means more likely adversarial.
    seed : int, default=0
        Of the bootstrap.

    Returns
    -------
    Estimate
        Clean and adversarial scores are resampled separately, 1,000 times
        (percentile interval); NaN for the ends if there is but one of a kind.

    Raises
    ------
    ValueError
        If there are no scores of a kind, or one is NaN.

    Examples
    --------
    >>> from curvdetect.study.metrics import auroc
    >>> auroc([0.0, 1.0, 2.0], [3.0, 4.0]).value
    1.0
    """

    def area(
        clean: npt.NDArray[Any], adversarial: npt.NDArray[Any], axis: int
    ) -> npt.NDArray[Any]:
        n_pairs = clean.shape[axis] * adversarial.shape[axis]
        test = stats.mannwhitneyu(adversarial, clean, axis=axis, method="asymptotic")
        return np.asarray(test.statistic / n_pairs)

    return _bootstrap(area, clean, adversarial, seed)


def tpr_at_fpr(
    clean: npt.ArrayLike, adversarial: npt.ArrayLike, fpr: float, *, seed: int = 0
) -> Estimate:
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
    Estimate
        With a bootstrap interval as in :func:`auroc`.

    Examples
    --------
    >>> from curvdetect.study.metrics import tpr_at_fpr
    >>> tpr_at_fpr([0.0, 1.0, 2.0, 3.0], [2.5, 4.0], 0.25).value
    1.0
    """

    def rate(
        clean: npt.NDArray[Any], adversarial: npt.NDArray[Any], axis: int
    ) -> npt.NDArray[Any]:
        clean, adversarial = (np.moveaxis(v, axis, -1) for v in (clean, adversarial))
        n_above = int(fpr * clean.shape[-1] + 1e-9)  # that may be flagged
        if n_above >= clean.shape[-1]:
            return np.ones(clean.shape[:-1])
        limit = np.sort(clean, axis=-1)[..., -1 - n_above, None]
        return np.asarray((adversarial > limit).mean(axis=-1))

    return _bootstrap(rate, clean, adversarial, seed)


def proportion(hits: npt.ArrayLike) -> Estimate:
    """Share of true values, with Wilson's interval.

    Parameters
    ----------
    hits : array of bool of shape (n,)
        Outcomes.

    Returns
    -------
    Estimate
        NaN if there are no outcomes.

    Examples
    --------
    >>> from curvdetect.study.metrics import proportion
    >>> proportion([True, True, False, True]).value
    0.75
    """
    hits = np.asarray(hits, dtype=bool)
    if not hits.size:
        return Estimate(np.nan, np.nan, np.nan)
    test = stats.binomtest(int(hits.sum()), hits.size)
    interval = test.proportion_ci(method="wilson")
    return Estimate(float(hits.mean()), float(interval.low), float(interval.high))


def mean_norm(norms: npt.ArrayLike) -> Estimate:
    """Mean with the interval of Student's t.

    Parameters
    ----------
    norms : array of shape (n,)
        At least two numbers.

    Returns
    -------
    Estimate
        In the units of `norms`.

    Examples
    --------
    >>> from curvdetect.study.metrics import mean_norm
    >>> mean_norm([1.0, 2.0, 3.0]).value
    2.0
    """
    norms = np.asarray(norms, dtype=np.float64)
    half = stats.sem(norms) * stats.t.ppf(0.975, len(norms) - 1)
    mean = float(norms.mean())
    return Estimate(mean, float(mean - half), float(mean + half))


def _bootstrap(
    statistic: Callable[..., npt.NDArray[Any]],
    clean: npt.ArrayLike,
    adversarial: npt.ArrayLike,
    seed: int,
) -> Estimate:
    samples = np.asarray(clean, dtype=np.float64), np.asarray(adversarial, np.float64)
    for name, scores in zip(("clean", "adversarial"), samples, strict=True):
        if np.isnan(scores).any() or not len(scores):
            raise ValueError(
                f"{name} must hold at least one score, and no NaN; got "
                f"{np.isnan(scores).sum()} NaN among {len(scores)}"
            )
    value = float(statistic(*samples, axis=-1))
    if min(map(len, samples)) < 2:
        return Estimate(value, np.nan, np.nan)  # one score says nothing of its spread
    result = stats.bootstrap(
        samples,
        statistic,
        vectorized=True,
        n_resamples=_N_RESAMPLES,
        batch=_BATCH,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


@dataclass
class Passes:
    """What :func:`count_passes` counted.

    Attributes
    ----------
    forward, backward : int
        Images that went through the network each way.
    """

    forward: int = 0
    backward: int = 0

    @property
    def forward_equivalents(self) -> int:
        """Cost in forward passes of one image; a backward pass counts as two."""
        return self.forward + 2 * self.backward


@contextmanager
def count_passes(module: nn.Module) -> Iterator[Passes]:
    """Count the images that a network is given, and those it is differentiated at.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Yields
    ------
    Passes
        Counts, while the context lasts.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.metrics import count_passes
    >>> network = torch.nn.Linear(4, 2)
    >>> x = torch.zeros(3, 4, requires_grad=True)
    >>> with count_passes(network) as passes:
    ...     network(x).sum().backward()
    >>> passes, passes.forward_equivalents
    (Passes(forward=3, backward=3), 9)
    """
    passes = Passes()

    def backward(gradient: Tensor) -> None:
        passes.backward += len(gradient)

    def forward(called: nn.Module, _: Any, output: Any) -> None:
        if called is not module:
            return
        passes.forward += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    # Of all modules: a hook of its own would become part of the module, and of what
    # joblib looks results up by.
    handle = register_module_forward_hook(forward)
    try:
        yield passes
    finally:
        handle.remove()
