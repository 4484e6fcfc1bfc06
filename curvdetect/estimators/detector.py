"""`CurvatureThresholdDetector`: flag images whose boundaries bulge out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import roc_curve
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["CurvatureThresholdDetector"]

_STATISTICS: dict[str, Callable[..., Any]] = {
    "max": np.fmax.reduce,
    "sum": np.nansum,
    "mean": np.nanmean,
}
#: Score of an image without boundary: infinity would break scikit-learn's scorers.
_NO_BOUNDARY = float(np.finfo(np.float64).max)
_CRITERIA = ("balanced_accuracy", "accuracy")


class CurvatureThresholdDetector(ClassifierMixin, BaseEstimator):
    """Tell adversarial images from clean ones by one threshold.

    An image is flagged if a statistic of its boundaries' curvatures is above the
    threshold: clean images have concave surroundings, adversarial ones a boundary
    that bulges out.

    Parameters
    ----------
    statistic : {"max", "sum", "mean"}, default="max"
        Score of an image: over all its columns that are not NaN. Every column
        counts, so give it curvatures at one step alone.
    target_fpr : float, optional
        If given, the threshold is set on the clean images alone, so that a new clean
        image is flagged with probability at most `target_fpr` (see Notes), and
        adversarial images are not needed to fit.
    criterion : {"balanced_accuracy", "accuracy"}, default="balanced_accuracy"
        What the threshold maximises on the images given to `fit`; not used with
        `target_fpr`.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The labels of clean and adversarial images; 0 and 1 if fitted without `y`.
    threshold_ : float
        Images with a larger score are flagged.
    clean_scores_ : ndarray
        Scores of the clean images given to `fit`, in order.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if a data frame with names was given.

    Notes
    -----
    With `target_fpr` the threshold is a conformal quantile: the k-th smallest of the
    n clean scores, k = ceil((n + 1)(1 - target_fpr)). If the new clean image and the
    n images are exchangeable, it is flagged with probability at most `target_fpr`,
    on average over the draw of the n images, for every n. This needs
    n >= 1 / target_fpr - 1 images. The images must not have been used to train the
    network.

    References
    ----------
    V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
    Springer 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect import CurvatureThresholdDetector
    >>> X = np.array([[-0.3, -0.1], [-0.2, 0.0], [-0.1, 0.4], [0.0, 0.5]])
    >>> y = np.array([0, 0, 1, 1])
    >>> detector = CurvatureThresholdDetector().fit(X, y)
    >>> float(detector.threshold_)
    0.2
    >>> detector.predict(X)
    array([0, 0, 1, 1])
    """

    def __init__(
        self,
        *,
        statistic: Literal["max", "sum", "mean"] = "max",
        target_fpr: float | None = None,
        criterion: Literal["balanced_accuracy", "accuracy"] = "balanced_accuracy",
    ) -> None:
        self.statistic = statistic
        self.target_fpr = target_fpr
        self.criterion = criterion

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike | None = None
    ) -> CurvatureThresholdDetector:
        """Set the threshold.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.
        y : array of shape (n_samples,), optional
            Two labels, of which the smaller one means clean. Without it, which
            `target_fpr` allows, all images are clean.

        Returns
        -------
        CurvatureThresholdDetector
            Itself.

        Raises
        ------
        ValueError
            If a parameter is not allowed, `y` does not hold two classes, or there are
            too few clean images for `target_fpr` (the message says how many it takes),
            or too many of them have no boundary.
        """
        self._check_parameters()
        if y is None and self.target_fpr is not None:
            values: npt.NDArray[Any] = validate_data(self, X, **_VALIDATION)
            self.classes_ = np.array([0, 1])
            adversarial = np.zeros(len(values), dtype=np.bool_)
        else:
            # Where y is missing, this raises scikit-learn's own error.
            values, labels = validate_data(self, X, y, **_VALIDATION)
            self.classes_, adversarial = _two_classes(labels)
        scores, _ = self._scores(values)
        self.clean_scores_ = np.sort(scores[~adversarial])
        if self.target_fpr is not None:
            self.threshold_ = _conformal_threshold(self.clean_scores_, self.target_fpr)
        else:
            self.threshold_ = _best_threshold(scores, adversarial, self.criterion)
        return self

    def score_samples(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Score images: the larger, the more likely adversarial.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples,)
            The statistic, in the units of `X`. An image without any boundary has the
            largest finite number.

        Warns
        -----
        UserWarning
            If an image has no boundary at all.
        """
        check_is_fitted(self)
        values = validate_data(self, X, reset=False, **_VALIDATION)
        scores, blank = self._scores(values)
        if blank.any():
            warnings.warn(
                f"{blank.sum()} of {len(blank)} images have no boundary (a row of "
                "NaN); they are flagged",
                UserWarning,
                stacklevel=2,
            )
        return scores

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return score - threshold: positive where an image is flagged.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the units of `X`.
        """
        scores = self.score_samples(X)
        return np.asarray(scores - self.threshold_, dtype=np.float64)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Label images as clean or adversarial.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``classes_[1]`` where the score is above the threshold.
        """
        # not score - threshold > 0: a tiny difference may round to zero
        flagged = self.score_samples(X) > self.threshold_
        return np.asarray(self.classes_[flagged.astype(int)])

    def p_values(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return how surprising each image would be if it were clean.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples,)
            Conformal p-values (1 + number of clean scores at least as large) /
            (n + 1): at most a with probability at most a, for a clean image.
            An image is flagged at `target_fpr` = a just if its p-value is at most a.
        """
        scores = self.score_samples(X)
        n = len(self.clean_scores_)
        as_large = n - np.searchsorted(self.clean_scores_, scores, side="left")
        return np.asarray((1 + as_large) / (n + 1), dtype=np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        # It is made for curvatures; on any other features its score is poor indeed.
        tags.classifier_tags.poor_score = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.required = self.target_fpr is None
        return tags

    def _check_parameters(self) -> None:
        if self.statistic not in _STATISTICS:
            raise ValueError(
                f"statistic must be one of {tuple(_STATISTICS)}; got {self.statistic!r}"
            )
        if self.criterion not in _CRITERIA:
            raise ValueError(
                f"criterion must be one of {_CRITERIA}; got {self.criterion!r}"
            )
        fpr = self.target_fpr
        if fpr is not None and not (isinstance(fpr, Real) and 0 < fpr < 1):
            raise ValueError(
                f"target_fpr must be a number between 0 and 1, or None; got {fpr!r}"
            )

    def _scores(
        self, X: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return scores, and which rows have no boundary at all."""
        X = np.asarray(X, dtype=np.float64)
        blank = np.isnan(X).all(axis=1)
        filled = np.where(blank[:, None], 0.0, X)
        scores = np.asarray(_STATISTICS[self.statistic](filled, axis=1))
        scores[blank] = _NO_BOUNDARY
        return scores, blank


_VALIDATION: dict[str, Any] = {
    "dtype": [np.float64, np.float32],
    "ensure_all_finite": "allow-nan",
}


def _two_classes(y: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the two labels, and which samples have the second."""
    check_classification_targets(y)
    classes, indices = np.unique(y, return_inverse=True)
    if len(classes) > 2:
        raise ValueError(
            "Only binary classification is supported. The type of the target is "
            f"{type_of_target(y)}."
        )
    if len(classes) < 2:
        raise ValueError(
            "y must hold two classes, clean and adversarial; got one class. With "
            "clean images alone, give target_fpr and leave y out."
        )
    return classes, indices == 1


def n_allowed_above(n: int, fpr: float) -> int:
    """Return how many of n clean scores may lie above a threshold for `fpr`.

    That is of n + 1 exchangeable ones. Refuses an n for which there would be none.
    """
    # The tiny term undoes rounding in fpr * (n + 1), as in 0.29 * 100.
    n_above = math.floor(fpr * (n + 1) * (1 + 1e-12))
    if n_above < 1:
        raise ValueError(
            f"target_fpr={fpr:g} needs at least {math.ceil(1 / fpr - 1e-9) - 1} clean "
            f"images to fit; got {n}"
        )
    return n_above


def _conformal_threshold(clean_scores: npt.NDArray[np.float64], fpr: float) -> float:
    """Return the score above which at most a share `fpr` of new clean images lie."""
    n = len(clean_scores)
    n_above = n_allowed_above(n, fpr)
    threshold = float(clean_scores[n - n_above])
    if threshold == _NO_BOUNDARY:
        raise ValueError(
            f"{(clean_scores == _NO_BOUNDARY).sum()} of the {n} clean images have no "
            f"boundary, more than target_fpr={fpr:g} allows to flag; nothing could "
            "ever be flagged. See the featurizer's warnings."
        )
    return threshold


def _best_threshold(
    scores: npt.NDArray[np.float64], adversarial: npt.NDArray[np.bool_], criterion: str
) -> float:
    """Return the midpoint between two scores where the criterion is largest."""
    fpr, tpr, values = roc_curve(adversarial, scores, drop_intermediate=False)
    share = 0.5 if criterion == "balanced_accuracy" else float(adversarial.mean())
    best = int(np.argmax(share * tpr - (1 - share) * fpr))
    if np.isinf(values[best]):  # nothing is flagged, but for a missing boundary
        return min(float(scores.max()), float(np.nextafter(_NO_BOUNDARY, 0)))
    unflagged = scores[scores < values[best]]
    below = float(np.nextafter(values[best], -np.inf))
    if not len(unflagged):
        return below
    # Halves first: the sum of two large scores could overflow. Between neighbouring
    # numbers there is no middle.
    return min(float(values[best] / 2 + unflagged.max() / 2), below)
