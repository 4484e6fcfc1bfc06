"""`CurvatureRelabeler`: the label an image had before it was perturbed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from curvdetect._base.warn import warn

__all__ = ["CurvatureRelabeler", "most_curved"]


class CurvatureRelabeler(ClassifierMixin, BaseEstimator):
    """Recover the original label of adversarial images from the curvatures.

    The original label is taken to be the class whose boundary has the largest average
    curvature, the one that bulges out. Column k of the features belongs to class k, as
    in the features of ``CurvatureFeaturizer(layout="class")`` with one feature and one
    step. `fit` learns only which labels the columns stand for. The predicted class,
    whose column is NaN, is not returned, so ask for flagged images only.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The label of each column: 0, 1, ... , or the labels given to `fit`, in order,
        if they are something else.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if a data frame with names was given.

    Examples
    --------
    An image that the network calls 0; its boundary with class 2 bulges out.

    >>> import numpy as np
    >>> from curvdetect import CurvatureRelabeler
    >>> X = np.array([[np.nan, -0.2, 0.3]])
    >>> CurvatureRelabeler().fit(X).predict(X)
    array([2])
    """

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike | None = None
    ) -> CurvatureRelabeler:
        """Learn which labels the columns stand for.

        Parameters
        ----------
        X : array of shape (n_samples, n_classes)
            Curvatures; NaN where there is no boundary.
        y : array of shape (n_samples,), optional
            Original labels. Whole numbers below n_classes are the column numbers,
            as they are without `y`; any other labels belong to the columns in sorted
            order.

        Returns
        -------
        CurvatureRelabeler
            Itself.

        Raises
        ------
        ValueError
            If `X` has one column only, or `y` one class only.

        Warns
        -----
        UserWarning
            If there are not as many labels as columns.
        """
        if y is None:
            validate_data(self, X, **_VALIDATION)
            classes = np.arange(self.n_features_in_)
        else:
            _, labels = validate_data(self, X, y, **_VALIDATION)
            check_classification_targets(labels)
            classes = _labels_of_columns(labels, self.n_features_in_)
        if len(classes) < 2:
            raise ValueError(
                "the relabeler chooses between classes; got one class and "
                f"{self.n_features_in_} columns"
            )
        if len(classes) != self.n_features_in_:
            warn(
                f"y holds {len(classes)} labels, but X has {self.n_features_in_} "
                "columns, one per class is expected; labels without a column are "
                "never predicted, columns without a label are not used. Is layout="
                '"class" set, with one feature and one step?'
            )
        self.classes_ = classes
        return self

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Score the classes: the larger, the more likely the original label.

        Parameters
        ----------
        X : array of shape (n_samples, n_classes)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            The curvatures; a class without a boundary gets less than any other. For
            two classes, that of the second minus that of the first.
        """
        scores = self._scores(X)
        if len(self.classes_) == 2:
            return np.asarray(scores[:, 1] - scores[:, 0], dtype=np.float64)
        return scores

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Predict original labels.

        Parameters
        ----------
        X : array of shape (n_samples, n_classes)
            Curvatures; NaN where there is no boundary.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels.
        """
        best = self._scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def rank(self, X: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the position of the original label among the classes.

        Parameters
        ----------
        X : array of shape (n_samples, n_classes)
            Curvatures; NaN where there is no boundary.
        y : array of shape (n_samples,)
            Original labels.

        Returns
        -------
        ndarray of shape (n_samples,)
            1 where the original label came first.

        Raises
        ------
        ValueError
            If `y` does not fit `X`, or holds a label that was not seen at `fit`.
        """
        scores = self._scores(X)
        y = np.asarray(y)
        if y.shape != (len(scores),):
            raise ValueError(
                f"y must hold one label per row of X, ({len(scores)},); got {y.shape}"
            )
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y must hold labels out of {self.classes_.tolist()}; got "
                f"{unknown.tolist()}"
            )
        original = np.searchsorted(self.classes_, y)
        own = np.take_along_axis(scores, original[:, None], axis=1)
        return np.asarray(1 + (scores > own).sum(axis=1), dtype=np.int64)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")  # validation of X sets others before

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        # It is made for curvatures; on any other features its score is poor indeed.
        tags.classifier_tags.poor_score = True
        tags.target_tags.required = False
        return tags

    def _scores(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return one finite score per class, in the order of the curvatures."""
        check_is_fitted(self)
        values: npt.NDArray[Any] = validate_data(self, X, reset=False, **_VALIDATION)
        n_classes = len(self.classes_)
        n_columns = min(n_classes, self.n_features_in_)
        scores = np.full((len(values), n_classes), np.nan)
        scores[:, :n_columns] = values[:, :n_columns]
        # One below the least: last in order, yet finite, as scorers want it.
        least = np.fmin.reduce(scores, axis=1, initial=np.inf, keepdims=True)
        least = np.where(np.isfinite(least), least, 0.0)
        return np.where(np.isnan(scores), least - 1, scores)


_VALIDATION: dict[str, Any] = {
    "dtype": [np.float64, np.float32],
    "ensure_all_finite": "allow-nan",
}


def most_curved(
    curvature: npt.NDArray[Any],
    classes: npt.NDArray[np.int64],
    otherwise: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return the class of the largest of k curvatures of each image, (n,).

    Where all are NaN, what is in `otherwise`.
    """
    if not curvature.shape[1]:
        return otherwise
    filled = np.where(np.isnan(curvature), -np.inf, curvature)
    best = np.take_along_axis(classes, filled.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(np.isnan(curvature).all(axis=1), otherwise, best)


def _labels_of_columns(y: npt.NDArray[Any], n_columns: int) -> npt.NDArray[Any]:
    labels = np.unique(y)
    if labels.dtype.kind in "iu" and labels[0] >= 0 and labels[-1] < n_columns:
        return np.arange(n_columns)
    return labels
