"""What detectors that look at images themselves share: checks, and what users ask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from curvdetect.attacks import Lesson, curriculum
from curvdetect.attacks.gradient_steps import Norm
from curvdetect.estimators._right import labels_of, right_ones
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.estimators.detector import conformal_p_values
from curvdetect.estimators.state import as_model, bounds_for, warn_of_no_bounds
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_flat_array
from curvdetect.network.checks import check_shape

__all__ = ["Examined", "ImageDetector", "held_detector", "image_detector"]

_N_CHECK_IMAGES = 8


class Examined(NamedTuple):
    """What the detector makes of n images; see :meth:`LearnedDetector.examine`.

    Attributes
    ----------
    logits : ndarray of shape (n, n_classes)
        Of the network.
    score : ndarray of shape (n,)
        Log-odds of an attack: the larger, the more likely adversarial.
    flagged : ndarray of shape (n,), bool
        Whether the score is above the threshold.
    recovered_label : ndarray of shape (n,), int64
        The likeliest label before an attack, if there was one.
    recovered_probability : ndarray of shape (n,)
        How likely it is, among the classes of the largest other logits.
    stage : ndarray of shape (n,), int64
        The last stage that was measured, from 0.
    """

    logits: npt.NDArray[Any]
    score: npt.NDArray[np.float64]
    flagged: npt.NDArray[np.bool_]
    recovered_label: npt.NDArray[np.int64]
    recovered_probability: npt.NDArray[np.float64]
    stage: npt.NDArray[np.int64]


class ImageDetector(SharedNetworkMixin, BaseEstimator):
    """A detector with a network, and a companion, as its parameters.

    It has an `examine` that says all at once; fitted, it has `model_`, `companion_`,
    digests of the weights of both, `input_shape_`, `bounds_`, `threshold_` and
    `clean_scores_`.
    """

    _shared_parameters = ("model", "companion")

    model: TorchModel | nn.Module | None
    model_: TorchModel
    companion_: Any  # a Companion, or None
    weights_: str
    companion_weights_: str | None
    input_shape_: tuple[int, ...]
    n_features_in_: int
    bounds_: tuple[float, float] | None
    threshold_: float
    clean_scores_: npt.NDArray[np.float64]

    @abstractmethod
    def examine(self, X: npt.ArrayLike | Tensor) -> Examined:
        """Look at images once and say all that is known.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        Examined
            Logits, scores, flags, recovered labels.
        """

    @abstractmethod
    def _examined(self, images: Tensor) -> Examined:
        """Do so with images that were checked, or made here."""

    def _lessons(
        self, model: TorchModel, shortest: Mapping[Norm, float]
    ) -> list[Lesson]:
        """Return the attacks that try it, for budgets that begin where it says."""
        return curriculum(model, self.n_features_in_, shortest, {})

    def _prepared(
        self, X: npt.ArrayLike | Tensor, y: npt.ArrayLike | None
    ) -> tuple[TorchModel, Tensor, Tensor, str]:
        """Return the network, images to fit on, its labels, and what was left out."""
        flat, shape = as_flat_array(X)
        values = validate_data(self, flat, dtype=[np.float64, np.float32])
        self.bounds_ = bounds_for(self.model, values)
        warn_of_no_bounds(self.model, self.bounds_)
        model = self._wrapped(shape or values.shape[1:], self.bounds_)
        input_shape = tuple(model.input_shape or shape or values.shape[1:])
        check_shape((len(values), *(shape or values.shape[1:])), input_shape)
        if self.n_features_in_ < 2:
            raise ValueError(
                "images of n_features = 1 value have no tangent directions; at least "
                "2 values are needed"
            )
        images = model.to_tensor(values.reshape(-1, *input_shape))
        given = None if y is None else labels_of(y, len(values))
        model.check(images[:_N_CHECK_IMAGES])
        predicted, left_out = model.predict(images), ""
        if given is not None:
            right, left_out = right_ones(model, predicted, given)
            images, predicted = images[torch.from_numpy(right)], predicted[right]
        return model, images, torch.from_numpy(predicted), left_out

    def _wrapped(
        self, shape: tuple[int, ...], bounds: tuple[float, float] | None
    ) -> TorchModel:
        """Return the network, clamped to its bounds if it has any."""
        return as_model(self.model, shape, bounds).clamped()

    def _checked(self, X: npt.ArrayLike | Tensor) -> Tensor:
        """Return checked images in their shape, for the network of `fit`."""
        check_is_fitted(self)
        flat, shape = as_flat_array(X)
        if shape is not None:  # scikit-learn would count their values, not more
            check_shape((len(flat), *shape), self.input_shape_)
        values = validate_data(self, flat, dtype=[np.float64, np.float32], reset=False)
        if self.model_.weights_digest() != self.weights_:
            raise ValueError(
                "the network must have the weights that the detector learned from; "
                "they are others now, of which it knows nothing. Fit again"
            )
        if (
            self.companion_ is not None
            and self.companion_.model.weights_digest() != self.companion_weights_
        ):
            raise ValueError(
                "the companion must have the weights that the detector learned with; "
                "they are others now. Fit again"
            )
        return self.model_.to_tensor(values.reshape(-1, *self.input_shape_))

    def score_samples(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Score images: the larger, the more likely adversarial.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples,)
            As :meth:`examine` gives them.
        """
        return self.examine(X).score

    def decision_function(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Return score - threshold: positive where an image is flagged.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the units of the score.
        """
        return np.asarray(self.examine(X).score - self.threshold_)

    def predict(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.int64]:
        """Label images: 0 clean, 1 adversarial.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples,), int64
            1 where the score is above the threshold.
        """
        return self.examine(X).flagged.astype(np.int64)

    def p_values(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Return how surprising each image would be if it were clean.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples,)
            As :meth:`CurvatureThresholdDetector.p_values` gives them.
        """
        return conformal_p_values(self.clean_scores_, self.examine(X).score)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "threshold_")  # validation of X sets others before

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Return all that a score depends on, besides the image."""


def held_detector(guard: Any) -> Any:
    """Return what a guard decides by; itself, if it is a detector or has none."""
    held = getattr(guard, "guard", guard)  # of a CurvatureGuard
    if isinstance(held, ImageDetector):  # one that votes may hold another
        return held
    return getattr(held, "detector_", held)


def image_detector(guard: Any) -> ImageDetector:
    """Return the detector of a guard, which may be one itself.

    Parameters
    ----------
    guard : LearnedDetector, VotingDetector, GuardedClassifier or CurvatureGuard
        Fitted.

    Returns
    -------
    ImageDetector
        Fitted.

    Raises
    ------
    TypeError
        If it has none that scores images, but one of features, or none at all.
    NotFittedError
        If it was not fitted.
    """
    detector = held_detector(guard)
    if not isinstance(detector, ImageDetector):
        raise TypeError(
            "detector must be a learned detector or one that votes, or a guard with "
            f"such a one, fitted; got {type(guard).__name__} with "
            f"{type(detector).__name__}"
        )
    check_is_fitted(detector)
    return detector
