"""`CurvatureThresholdDetector`: flag images whose boundaries bulge out."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, is_outlier_detector
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from curvdetect._base.checks import check_choice
from curvdetect._base.warn import warn

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
    """Tell adversarial images from clean ones by a threshold on curvature.

    An image is flagged if a statistic of the curvatures of its boundaries, by default
    the largest, is above the threshold. The boundaries around clean images curve away
    from them; around an adversarial image, one bulges out.

    Parameters
    ----------
    statistic : {"max", "sum", "mean"}, default="max"
        Score of an image, over all columns that are not NaN. Every column counts, so
        give it only curvatures, at one step.
    target_fpr : float, optional
        False-positive rate. If given, the threshold is set on clean images alone, so
        that a new clean image is flagged with probability at most `target_fpr` (see
        Notes). Otherwise `fit` needs adversarial images too.
    criterion : {"balanced_accuracy", "accuracy"}, default="balanced_accuracy"
        What the threshold maximises on the images given to `fit`; not used with
        `target_fpr`.
    pos_label : int, str or bool, optional
        The label that means adversarial. By default 1 for labels 0 and 1, and True for
        booleans. For any other two labels it is the one whose images have the larger
        scores, with a warning, because 1 and -1 have no fixed meaning.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The two labels, sorted; 0 and 1 if fitted without `y`.
    pos_label_ : int, str or bool
        The one of them that means adversarial.
    threshold_ : float
        Images with a larger score are flagged.
    clean_scores_ : ndarray
        Scores of the clean images given to `fit`, sorted.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if a data frame with names was given.

    Notes
    -----
    With `target_fpr` the threshold is a conformal quantile: the k-th smallest of the
    n clean scores, k = ceil((n + 1)(1 - target_fpr)). If the new clean image and the
    n images are exchangeable, it is flagged with probability at most `target_fpr`,
    on average over the draw of the n images. This needs n >= 1 / target_fpr - 1 images,
    which must not have been used to train the network.

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

    With other labels, say which of them means adversarial:

    >>> names = np.where(y == 1, "adversarial", "clean")
    >>> detector = CurvatureThresholdDetector(pos_label="adversarial").fit(X, names)
    >>> detector.predict(X[1:3]).tolist()
    ['clean', 'adversarial']
    """

    def __init__(
        self,
        *,
        statistic: Literal["max", "sum", "mean"] = "max",
        target_fpr: float | None = None,
        criterion: Literal["balanced_accuracy", "accuracy"] = "balanced_accuracy",
        pos_label: int | str | bool | None = None,
    ) -> None:
        self.statistic = statistic
        self.target_fpr = target_fpr
        self.criterion = criterion
        self.pos_label = pos_label

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike | None = None
    ) -> CurvatureThresholdDetector:
        """Set the threshold.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.
        y : array of shape (n_samples,), optional
            Two labels, one of them `pos_label`. Without it, which `target_fpr`
            allows, all images are clean.

        Returns
        -------
        CurvatureThresholdDetector
            Itself.

        Raises
        ------
        ValueError
            If a parameter is not allowed, `y` does not hold two classes, there are too
            few clean images for `target_fpr` (the message says how many it takes), too
            many of them have no boundary, or nothing tells which label means
            adversarial.

        Warns
        -----
        UserWarning
            If the scores had to tell which label means adversarial; or if clean images
            have the larger scores on the whole (an AUROC below 0.5).
        """
        self._check_parameters()
        if y is None and self.target_fpr is not None:
            values: npt.NDArray[Any] = validate_data(self, X, **_VALIDATION)
            self.classes_ = np.array([0, 1])
            second = np.zeros(len(values), dtype=np.bool_)
        else:
            # Where y is missing, this raises scikit-learn's own error.
            values, labels = validate_data(self, X, y, **_VALIDATION)
            self.classes_, second = _two_classes(labels)
        scores, _ = self._scores(values)
        self.pos_label_ = self._adversarial_label(scores, second, given=y is not None)
        adversarial = second if self._adversarial_is_second() else ~second
        if y is None:
            adversarial = np.zeros(len(values), dtype=np.bool_)
        self.clean_scores_ = np.sort(scores[~adversarial])
        if self.target_fpr is not None:
            self.threshold_ = conformal_threshold(
                self.clean_scores_, self.target_fpr, self._among(adversarial)
            )
            self._check_some_can_be_flagged()
        else:
            self.threshold_ = _best_threshold(scores, adversarial, self.criterion)
        return self

    def _check_some_can_be_flagged(self) -> None:
        """Refuse clean images of which too many have no boundary."""
        n_blank = int((self.clean_scores_ == _NO_BOUNDARY).sum())
        if self.threshold_ == _NO_BOUNDARY:
            raise ValueError(
                f"{n_blank} of the {len(self.clean_scores_)} clean images have no "
                f"boundary, more than target_fpr={self.target_fpr:g} allows to flag; "
                "nothing could ever be flagged. See the featurizer's warnings."
            )

    def _adversarial_label(
        self,
        scores: npt.NDArray[np.float64],
        second: npt.NDArray[np.bool_],
        given: bool,
    ) -> Any:
        """Return which of the two labels means adversarial."""
        classes = self.classes_.tolist()
        if self.pos_label is not None:
            if self.pos_label not in classes:
                raise ValueError(
                    f"pos_label must be one of the two labels, {classes}"
                    + " where y is left out" * (not given)
                    + f"; got {self.pos_label!r}"
                )
            label = classes[classes.index(self.pos_label)]
        elif classes == [0, 1]:  # or False and True, which are equal to them
            label = classes[1]
        else:
            return _label_of_larger_scores(classes, scores, second)
        if given:
            self._warn_if_inverted(scores, second == (label == classes[1]), label)
        return label

    def _warn_if_inverted(
        self,
        scores: npt.NDArray[np.float64],
        adversarial: npt.NDArray[np.bool_],
        label: Any,
    ) -> None:
        auroc = roc_auc_score(adversarial, scores)
        if auroc < 0.5:
            warn(
                f"the scores rank the images the wrong way round (AUROC {auroc:.2f}): "
                f"those labelled {label!r}, adversarial, have the smaller ones. Is "
                "another label the adversarial one (pos_label), or does X hold "
                "something else than curvatures?"
            )

    def _among(self, adversarial: npt.NDArray[np.bool_]) -> str:
        """Say that not all images were clean, if so."""
        if not adversarial.any():
            return ""
        clean = self.classes_[int(not self._adversarial_is_second())]
        return f" among {len(adversarial)} images, those labelled {clean!s}"

    def _adversarial_is_second(self) -> bool:
        """Return whether scikit-learn's positive class is the adversarial one."""
        return bool(self.pos_label_ == self.classes_[1])

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
            warn(
                f"{blank.sum()} of {len(blank)} images have no boundary (a row of "
                "NaN); they are flagged"
            )
        return scores

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return score - threshold: positive where an image is flagged.

        If the adversarial label is ``classes_[0]``, the smaller one, it is threshold -
        score: scikit-learn takes what is positive for ``classes_[1]``.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the units of `X`.
        """
        above = np.asarray(self.score_samples(X) - self.threshold_, dtype=np.float64)
        if self._adversarial_is_second():
            return above
        # What lies on the threshold is not flagged: of classes_[1], thus positive.
        return np.where(above == 0, np.finfo(np.float64).tiny, -above)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Label images as clean or adversarial.

        Parameters
        ----------
        X : array of shape (n_samples, n_boundaries)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``pos_label_`` where the score is above the threshold.
        """
        # not score - threshold > 0: a tiny difference may round to zero
        flagged = self.score_samples(X) > self.threshold_
        second = flagged == self._adversarial_is_second()
        return np.asarray(self.classes_[second.astype(int)])

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
        return conformal_p_values(self.clean_scores_, self.score_samples(X))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "threshold_")  # validation of X sets others before

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        # It is made for curvatures; on any other features its score is poor indeed.
        tags.classifier_tags.poor_score = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.required = self.target_fpr is None
        return tags

    def _check_parameters(self) -> None:
        check_choice("statistic", self.statistic, tuple(_STATISTICS))
        check_choice("criterion", self.criterion, _CRITERIA)
        check_target_fpr(self.target_fpr)

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


def _label_of_larger_scores(
    classes: list[Any], scores: npt.NDArray[np.float64], second: npt.NDArray[np.bool_]
) -> Any:
    """Return the label whose images have the larger scores, and say so."""
    auroc = roc_auc_score(second, scores)
    if auroc == 0.5:
        raise ValueError(
            "pos_label must say which label means adversarial; the scores of "
            f"{classes[0]!r} and {classes[1]!r} do not tell"
        )
    label = classes[int(auroc > 0.5)]
    warn(
        f"pos_label is not given: {label!r} is taken as the label of adversarial "
        f"images, whose scores are larger (AUROC {max(auroc, 1 - auroc):.2f}). Give "
        f"pos_label={label!r} if that is right"
    )
    return label


def check_target_fpr(fpr: object) -> None:
    """Refuse what is neither None nor a number strictly between 0 and 1."""
    if fpr is not None and not (isinstance(fpr, Real) and 0 < float(fpr) < 1):
        raise ValueError(
            f"target_fpr must be a number between 0 and 1, or None; got {fpr!r}"
        )


def target_fpr_of(detector: Any) -> float | None:
    """Return the false-positive rate that a fitted detector keeps, or was set to."""
    for name in ("target_fpr_", "target_fpr"):
        rate = getattr(detector, name, None)
        if rate is not None:
            return float(rate)
    return None


def n_allowed_above(n: int, fpr: float, among: str = "") -> int:
    """Return how many of n clean scores may lie above a threshold for `fpr`.

    That is of n + 1 exchangeable ones. Refuses an n for which there would be none,
    and says what else is known of them (`among`).
    """
    # The tiny term undoes rounding in fpr * (n + 1), as in 0.29 * 100.
    n_above = math.floor(fpr * (n + 1) * (1 + 1e-12))
    if n_above < 1:
        raise ValueError(
            f"target_fpr={fpr:g} needs at least {math.ceil(1 / fpr - 1e-9) - 1} clean "
            f"images to fit; got {n}{among}"
        )
    return n_above


def conformal_threshold(
    clean_scores: npt.NDArray[np.float64], fpr: float, among: str = ""
) -> float:
    """Return the score above which at most a share `fpr` of new clean images lie."""
    n = len(clean_scores)
    return float(clean_scores[n - n_allowed_above(n, fpr, among)])


def conformal_p_values(
    clean_scores: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return (1 + number of sorted clean scores at least as large) / (n + 1)."""
    n = len(clean_scores)
    as_large = n - np.searchsorted(clean_scores, scores, side="left")
    return np.asarray((1 + as_large) / (n + 1), dtype=np.float64)


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


def check_detects(detector: Any, also: str = "") -> None:
    """Refuse a fitted detector of which :func:`verdict` cannot ask."""
    needed = ["decision_function"]
    if not (_is_of_pyod(detector) or is_outlier_detector(detector)):
        needed.insert(0, "classes_")
    for name in needed:
        if not hasattr(detector, name):
            raise ValueError(
                f"detector must {also}be a classifier or an outlier detector with "
                f"decision_function; {type(detector).__name__} has no {name}"
            )


def verdict(
    detector: Any, features: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return which images a detector flags, and scores that are larger for them.

    Any classifier of two labels with ``decision_function``; without a ``pos_label_``
    the second means adversarial, as scikit-learn has it. Of an outlier detector,
    scikit-learn's or PyOD's, outliers are. The scores are positive where it flags.
    """
    score = np.asarray(detector.decision_function(features), dtype=np.float64)
    label = np.asarray(detector.predict(features))
    if _is_of_pyod(detector):
        return label == 1, score - detector.threshold_
    if is_outlier_detector(detector):
        return label == -1, -score
    classes = detector.classes_
    adversarial = getattr(detector, "pos_label_", classes[1])
    # scikit-learn's sign: positive for the second of the two labels.
    return label == adversarial, score if adversarial == classes[1] else -score


def _is_of_pyod(detector: Any) -> bool:
    """Say whether a fitted detector is one of PyOD's, by what all of them learn."""
    return hasattr(detector, "decision_scores_") and hasattr(detector, "threshold_")
