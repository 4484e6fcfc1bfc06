"""`assess_guard`: the self-test of a learned detector, for any guard, on new images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from curvdetect.estimators._image_detector import image_detector
from curvdetect.estimators._right import labels_of, right_ones
from curvdetect.estimators.detector import target_fpr_of
from curvdetect.estimators.self_test import (
    SelfTest,
    attempts,
    minimal_points,
    shortest_for,
    tried,
)

__all__ = ["assess_guard"]


def assess_guard(
    guard: Any,
    X: npt.ArrayLike | Tensor,
    y: npt.ArrayLike | None = None,
    *,
    random_state: int | np.random.RandomState | None = None,
) -> SelfTest:
    """Attack new images as a learned detector's self-test does, and let a guard judge.

    Parameters
    ----------
    guard : GuardedClassifier, LearnedDetector, VotingDetector or CurvatureGuard
        Fitted, with a detector that looks at images: a learned one or one that votes.
    X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
        Clean images that neither the network nor the guard was fitted on.
    y : array of shape (n_samples,), optional
        Their true labels: images that the network gets wrong are then left out.
    random_state : int, RandomState or None, default=None
        Seed of attacks and noise.

    Returns
    -------
    SelfTest
        Attacks against the clean images given, without the column of AUROCs without
        their kind. Cost: some hundred forward-equivalents for each image and attack,
        besides what the guard itself takes for an adversarial image and a noisy one.

    Raises
    ------
    TypeError
        If the guard has another detector.
    ValueError
        If the images or the labels are not what they must be, or no change of the
        images was found that fools the network.

    Notes
    -----
    A learned detector, also in one that votes, is tried with the attacks that it would
    learn from, in the budgets that `fit` found for the network: the rows are those of
    its own self-test. One that only votes learned from none: the attacks are all the
    built-in ones, and their budgets begin at what the images given need.

    Examples
    --------
    >>> from curvdetect import GuardedClassifier, LearnedDetector, assess_guard
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> guard = GuardedClassifier(
    ...     load_lenet("fashion-mnist"),
    ...     detector=LearnedDetector(target_fpr=0.1, self_test=False),
    ... ).fit(X[:90], y[:90])
    >>> test = assess_guard(guard, X[90:120], y[90:120])
    >>> 0.8 < test.mean_auroc <= 1
    True
    """
    detector = image_detector(guard)
    images, model = detector._checked(X), detector.model_
    predicted = model.predict(images)
    if y is not None:
        right, _ = right_ones(model, predicted, labels_of(y, len(images)))
        images, predicted = images[torch.from_numpy(right)], predicted[right]
    labels = torch.from_numpy(predicted)
    points, norms = minimal_points(model, images, labels)
    lessons = detector._lessons(model, shortest_for(detector, points - images, norms))
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    rows = tried(
        detector._examined,
        attempts(model, lessons, images, labels, points, seed),
        detector._examined(images).score,
        detector.threshold_,
    )
    return SelfTest([row for *_, row in rows], target_fpr_of(detector) or math.nan)
