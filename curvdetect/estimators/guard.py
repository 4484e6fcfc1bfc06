"""`GuardedClassifier`: a network's labels, with a second look at flagged images."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from curvdetect._base.checks import check_choice
from curvdetect.estimators._parts import Asked
from curvdetect.estimators._right import labels_of, right_ones
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.estimators.detector import (
    CurvatureThresholdDetector,
    check_detects,
    n_allowed_above,
    verdict,
)
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.relabeler import most_curved
from curvdetect.estimators.self_test import SelfTest
from curvdetect.estimators.voting import Certified, VotingDetector
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array, as_flat_array
from curvdetect.network.checks import check_shape
from curvdetect.network.class_names import named
from curvdetect.signals import BoundarySignal, Companion, Curvature, Measured

__all__ = ["Assessment", "GuardedClassifier"]

OnFlag = Literal["relabel", "reject", "label"]


class Assessment(NamedTuple):
    """What a guard makes of images; see :meth:`GuardedClassifier.assess`.

    Attributes
    ----------
    label : ndarray of shape (n_samples,), int64
        The label that the guard gives.
    model_label : ndarray of shape (n_samples,), int64
        The label that the network gives.
    recovered_label : ndarray of shape (n_samples,), int64
        The label before the attack, on the assumption that there was one; the
        network's label where no boundary was found.
    flagged : ndarray of shape (n_samples,), bool
        Whether the image looks adversarial.
    score : ndarray of shape (n_samples,)
        The larger, the more likely adversarial; positive where an image is flagged.
    class_names : tuple of str or None
        The network's names of the classes, if it has any.
    """

    label: npt.NDArray[np.int64]
    model_label: npt.NDArray[np.int64]
    recovered_label: npt.NDArray[np.int64]
    flagged: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float64]
    class_names: tuple[str, ...] | None = None

    @property
    def label_name(self) -> npt.NDArray[np.str_] | None:
        """Names of `label`, "" for a `reject_label`; None without class names."""
        return named(self.label, self.class_names)

    @property
    def model_label_name(self) -> npt.NDArray[np.str_] | None:
        """Names of `model_label`, or None."""
        return named(self.model_label, self.class_names)

    @property
    def recovered_label_name(self) -> npt.NDArray[np.str_] | None:
        """Names of `recovered_label`, or None."""
        return named(self.recovered_label, self.class_names)


class GuardedClassifier(SharedNetworkMixin, BaseEstimator):
    """Predict a network's labels, but relabel or reject images that look adversarial.

    By default a :class:`LearnedDetector` flags and relabels images; it learns from
    attacks that it makes on this network. With ``detector="threshold"``, or with a
    featurizer, an image is flagged if the largest curvature of its boundaries is above
    a threshold.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The trained network.
    companion : Companion, TorchModel or torch.nn.Module, optional
        A second classifier that a learned detector asks about every image, so that an
        attacker who knows the guard has to fool both. See :class:`LearnedDetector`,
        and :func:`~curvdetect.study.training.train_companion`.
    featurizer : CurvatureFeaturizer, optional
        What measures the features, for a detector that needs features. A copy is
        fitted, with the guard's `model`; the featurizer's own may be left out. By
        default one with default settings and `random_state`. A flagged image is
        relabelled with the class of its largest curvature, so "curvature" must be
        among the features if `on_flag` is "relabel".
    detector : {"learned", "threshold"} or estimator, optional
        What flags images; a copy is fitted.

        - "learned", or a :class:`LearnedDetector` or :class:`VotingDetector`, which
          take images and also relabel them;
        - "threshold": a :class:`CurvatureThresholdDetector` with `target_fpr`, for
          which the features must be curvatures at one step;
        - a classifier with ``decision_function``, or an outlier detector of
          scikit-learn or PyOD, fitted on the features of clean images only. If it
          cannot handle NaN, give the featurizer ``layout="nearest"``.

        By default "learned"; with a `featurizer`, "threshold".
    on_flag : {"relabel", "reject", "label"}, default="relabel"
        What :meth:`predict` returns for a flagged image: the recovered label, the
        `reject_label`, or the network's label.
    reject_label : int, default=-1
        The label of rejected images.
    target_fpr : float, optional
        False-positive rate: the share of clean images that may be flagged. By default
        0.01; with "learned" and too few images, the lowest rate that they allow, with
        a warning. Must be left out if `detector` is an estimator, which has its own.
    random_state : int, optional
        Seed of what is fitted; 0 by default. Must be left out with a `featurizer`.
    verbose : int, default=0
        1 shows what a learned detector is doing.

    Attributes
    ----------
    detector_ : estimator
        The fitted detector.
    featurizer_ : CurvatureFeaturizer or None
        The fitted featurizer; None with a detector that takes images.
    model_ : TorchModel
        The wrapped network.
    input_shape_ : tuple of int
        Shape of an image.
    self_test_ : SelfTest or None
        How well a learned detector detects each attack; ``print`` it.
    weights_ : str
        Digest of the network's weights. If they change, the guard refuses images.
    classes_ : ndarray of shape (n_classes,), int64
        0 .. n_classes - 1: labels are the positions of the logits.
    n_features_in_ : int
        Number of input values of an image.

    Notes
    -----
    For scikit-learn this is not a classifier, because it does not learn its classes
    from y. Where scikit-learn renumbers labels, as in
    ``cross_val_predict(method="predict_proba")``, y must contain every class. To use it
    where a classifier is required, as in voting, wrap it in ``CalibratedClassifierCV``.

    Examples
    --------
    >>> from curvdetect import GuardedClassifier
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> network = load_lenet("fashion-mnist")
    >>> guard = GuardedClassifier(network, detector="threshold", target_fpr=0.05)
    >>> guard.fit(X[:120], y[:120]).predict(X[120:123]).shape
    (3,)
    """

    _shared_parameters = ("model", "companion")

    def __init__(
        self,
        model: TorchModel | nn.Module,
        *,
        companion: Companion | TorchModel | nn.Module | None = None,
        featurizer: CurvatureFeaturizer | None = None,
        detector: Any = None,
        on_flag: OnFlag = "relabel",
        reject_label: int = -1,
        target_fpr: float | None = None,
        random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.companion = companion
        self.featurizer = featurizer
        self.detector = detector
        self.on_flag = on_flag
        self.reject_label = reject_label
        self.target_fpr = target_fpr
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: npt.ArrayLike | Tensor, y: npt.ArrayLike | None = None
    ) -> GuardedClassifier:
        """Calibrate on clean images.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Clean images that the network was not trained on.
        y : array of shape (n_samples,), optional
            Their true labels. With them, only images that the network gets right are
            used: others look adversarial, and rightly so.

        Returns
        -------
        GuardedClassifier
            Itself.

        Raises
        ------
        ValueError
            If a parameter, the images or the labels are not allowed, or too few images
            are left for `target_fpr`.

        Warns
        -----
        UserWarning
            If the network gets less than half of the images right; or, of a learned
            detector, what it will miss.
        """
        self._check_parameters()
        flat, shape = as_flat_array(X)
        values = validate_data(self, flat, dtype="numeric")
        images = values if shape is None else values.reshape(-1, *shape)
        labels = None if y is None else labels_of(y, len(images))
        parts = self._parts()
        if "featurizer_" in parts:
            self._fit_on_features(parts, images, labels)
        else:
            parts["detector_"].fit(images, labels)
        self._adopt(parts)
        return self

    def _fit_on_features(
        self,
        parts: dict[str, Any],
        images: npt.NDArray[Any],
        labels: npt.NDArray[Any] | None,
    ) -> None:
        """Fit a featurizer, and a detector on the features of clean images."""
        featurizer, detector = parts["featurizer_"], parts["detector_"]
        self._check_features(featurizer)
        right, left_out = np.ones(len(images), dtype=bool), ""
        if labels is not None:  # before anything is measured: they may be too few
            model = featurizer._tried_on(images)
            right, left_out = right_ones(model, model.predict(images), labels)
        _check_enough(detector, len(images[right]), left_out)
        featurizer.fit(images)
        detector.fit(featurizer.transform(np.asarray(images[right])))
        check_detects(detector, "be fitted on clean features alone, and ")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "detector_")  # validation of X sets others before

    @property
    def _asked(self) -> Asked:
        return Asked(
            detector=self.detector,
            featurizer=self.featurizer,
            companion=self.companion,
            target_fpr=self.target_fpr,
            random_state=self.random_state,
        )

    def _parts(self) -> dict[str, Any]:
        """Return what is to be fitted, by the names of the attributes."""
        featurizer, detector = self._asked.parts(self.model, self.verbose)
        parts = {} if featurizer is None else {"featurizer_": featurizer}
        return {**parts, "detector_": detector}

    def _adopt(self, parts: dict[str, Any], weights: str | None = None) -> None:
        """Take these as fitted, for a network of these weights; its own by default."""
        self.detector_ = parts["detector_"]
        self.featurizer_: Any = parts.get("featurizer_")
        looks = self.featurizer_ or self.detector_  # what looks at images
        self.model_, self.input_shape_ = looks.model_, tuple(looks.input_shape_)
        self.weights_ = weights or self.model_.weights_digest()
        self.classes_ = np.arange(looks.n_classes_)

    @property
    def self_test_(self) -> SelfTest | None:
        """The self-test of a learned detector; None without one."""
        check_is_fitted(self)
        return getattr(self.detector_, "self_test_", None)

    def _check_parameters(self) -> None:
        check_choice("on_flag", self.on_flag, get_args(OnFlag))
        if not isinstance(self.reject_label, Integral):
            raise ValueError(
                f"reject_label must be an integer; got {self.reject_label!r}"
            )
        self._asked.check(self.model)

    def _check_features(self, featurizer: CurvatureFeaturizer) -> None:
        """Refuse features that the default detector or relabelling cannot use."""
        n_others, n_steps = featurizer._n_curvatures()
        alone = (n_others, n_steps) == (0, 1)
        if self._asked.kind == "threshold" and not alone:
            raise ValueError(
                "featurizer must measure curvature alone, at one step, where no "
                "detector is given; give one that is fitted on such features of clean "
                f"images; got {featurizer!r}"
            )
        if self.on_flag == "relabel" and not n_steps:
            raise ValueError(
                'featurizer must have "curvature" among its features for '
                'on_flag="relabel"; give on_flag="reject" or "label", or add it; got '
                f"features={featurizer.features!r}"
            )

    def assess(self, X: npt.ArrayLike | Tensor) -> Assessment:
        """Measure images once, and return labels, flags and scores.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        Assessment
            Labels, flags and scores. Cost: that of the detector or the featurizer.

        Raises
        ------
        ValueError
            If the images are not what they must be, or the network was cast to another
            precision since `fit`.
        """
        return self._logits_and_assessment(X)[1]

    def _logits_and_assessment(
        self, X: npt.ArrayLike | Tensor
    ) -> tuple[npt.NDArray[Any], Assessment]:
        logits, recovered, flagged, score = self._seen(X)
        model_label = logits.argmax(axis=1)
        instead = {
            "relabel": recovered,
            "reject": np.full_like(model_label, self.reject_label),
            "label": model_label,
        }[self.on_flag]
        return logits, Assessment(
            label=np.where(flagged, instead, model_label),
            model_label=model_label,
            recovered_label=recovered,
            flagged=flagged,
            score=score,
            class_names=self.model_.class_names,
        )

    def _seen(self, X: npt.ArrayLike | Tensor) -> tuple[npt.NDArray[Any], ...]:
        """Return logits, recovered labels, flags and scores that are positive there."""
        images = self._images(X)
        if self.featurizer_ is None:
            found = self.detector_.examine(images)
            score = found.score - self.detector_.threshold_
            return found.logits, found.recovered_label, found.flagged, score
        measured, features = self._measure(images)
        logits = as_array(measured.logits)
        recovered = self._recovered(measured, logits.argmax(axis=1))
        return logits, recovered, *verdict(self.detector_, features)

    def _recovered(
        self, measured: Measured, model_label: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the classes of the largest curvatures, at the first step."""
        blocks = _curvature_blocks(self.featurizer_)
        if not blocks:
            return model_label
        curvature = measured.boundaries[:, blocks[0]].where(measured.found, torch.nan)
        return most_curved(as_array(curvature), measured.classes.numpy(), model_label)

    def _images(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[Any]:
        """Return checked images in their shape."""
        check_is_fitted(self)
        self._check_parameters()  # they may have been changed since
        flat, shape = as_flat_array(X)
        if shape is not None:  # scikit-learn would count their values, not more
            check_shape((len(flat), *shape), self.input_shape_)
        values = validate_data(self, flat, dtype="numeric", reset=False)
        return np.asarray(values).reshape(-1, *self.input_shape_)

    def _measure(self, images: npt.NDArray[Any]) -> tuple[Measured, npt.NDArray[Any]]:
        """Return what was measured around images, and the detector's features."""
        measured, dtype = self.featurizer_._measured(images, weights=self.weights_)
        return measured, self.featurizer_._arranged(measured, dtype)

    def predict(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.int64]:
        """Predict labels; flagged images get what `on_flag` says.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples,), int64
            Labels.
        """
        return self.assess(X).label

    def predict_proba(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Return probabilities of the labels, the softmax of the logits.

        For a flagged image, `on_flag` says what becomes of them: "relabel" exchanges
        those of the network's and the recovered label, so that the largest is that of
        :meth:`predict`; "reject" makes them equal, for nothing is known; "label" keeps
        them.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Each row sums to 1. As well calibrated as the network is.
        """
        return np.asarray(softmax(self._guarded_logits(X), axis=1))

    def decision_function(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Return a score for each class; the largest is that of the predicted one.

        They are the logits whose softmax :meth:`predict_proba` is: for a flagged image,
        exchanged, made equal or kept. How adversarial an image looks is told by
        :meth:`anomaly_score`.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Logits. For two classes, that of the second minus that of the first, as
            scikit-learn wants it.
        """
        logits = self._guarded_logits(X)
        if logits.shape[1] == 2:
            return np.asarray(logits[:, 1] - logits[:, 0])
        return logits

    def _guarded_logits(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Return logits that say for flagged images what `on_flag` wants."""
        logits, found = self._logits_and_assessment(X)
        out = logits.astype(np.float64)
        flagged = np.flatnonzero(found.flagged)
        if self.on_flag == "relabel":
            own, recovered = found.model_label[flagged], found.recovered_label[flagged]
            out[flagged, own], out[flagged, recovered] = (
                out[flagged, recovered],
                out[flagged, own],
            )
        elif self.on_flag == "reject":
            out[flagged] = 0
        return out

    def anomaly_score(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Return how adversarial images look: positive where they are flagged.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples,)
            The detector's score minus its threshold.
        """
        return self.assess(X).score

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
        images = self._images(X)
        if self.featurizer_ is not None:
            _, images = self._measure(images)
        return np.asarray(self.detector_.p_values(images))

    def certify(self, X: npt.ArrayLike | Tensor, **settings: Any) -> Certified:
        """Certify a radius within which no image with another label passes.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Clean images.
        **settings
            As :meth:`VotingDetector.certify` takes them.

        Returns
        -------
        Certified
            Radii, and what they rest on.

        Raises
        ------
        ValueError
            If `detector` is no :class:`VotingDetector`.
        """
        images = self._images(X)
        if not isinstance(self.detector_, VotingDetector):
            raise ValueError(
                "detector must be a VotingDetector to certify anything; got "
                f"{type(self.detector_).__name__}"
            )
        return self.detector_.certify(images, **settings)

    def score(self, X: npt.ArrayLike | Tensor, y: npt.ArrayLike) -> float:
        """Return the accuracy of the guarded labels; a rejected image counts as wrong.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images, clean or adversarial.
        y : array of shape (n_samples,)
            Original labels.

        Returns
        -------
        float
            Share of right labels.

        Raises
        ------
        ValueError
            If there is not a label for each image.
        """
        images = self._images(X)
        labels = labels_of(y, len(images))  # before anything is measured
        return float(accuracy_score(labels, self.predict(images)))


def _curvature_blocks(featurizer: CurvatureFeaturizer) -> list[int]:
    """Return which blocks of the boundaries' values are curvatures."""
    signals = [s for s in featurizer.signals_ if isinstance(s, BoundarySignal)]
    kinds = [isinstance(s, Curvature) for s in signals for _ in s.blocks()]
    return [block for block, yes in enumerate(kinds) if yes]


def _check_enough(detector: Any, n: int, left_out: str) -> None:
    """Refuse too few images before they are measured, and say where the others are."""
    if not isinstance(detector, CurvatureThresholdDetector):
        return
    detector._check_parameters()
    if detector.target_fpr is not None:
        n_allowed_above(n, detector.target_fpr, left_out)
