"""`CurvatureEvasionDetector`: a detector in the form that ART gives its own."""

from __future__ import annotations

from numbers import Number
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from art.defences.detector.evasion import EvasionDetector
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from curvdetect._base.warn import warn
from curvdetect.estimators._image_detector import ImageDetector
from curvdetect.estimators._parts import Asked
from curvdetect.estimators.detector import (
    CurvatureThresholdDetector,
    check_detects,
    verdict,
)
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.integrations.art._given import (
    adversarial_rows,
    warn_of_classes,
    within,
)
from curvdetect.integrations.art._model import (
    check_classifier,
    companion_from,
    model_from_art,
)
from curvdetect.network.modules import uncompiled

__all__ = ["CurvatureEvasionDetector"]


class CurvatureEvasionDetector(EvasionDetector):
    """Detect evasion by what attacks on this classifier look like, inside ART.

    Parameters
    ----------
    classifier : art.estimators.classification.PyTorchClassifier
        The classifier to guard.
    target_fpr : float, optional
        False-positive rate: the share of clean images that may be flagged. By default
        0.01; with "learned" and too few images, the lowest rate that they allow, with
        a warning. Must be left out if `detector` is an estimator, which has its own.
    featurizer : CurvatureFeaturizer, optional
        What measures the features, for a detector that needs features; a copy is
        fitted.
    detector : {"learned", "threshold"} or estimator, optional
        As in :class:`~curvdetect.GuardedClassifier`: a
        :class:`~curvdetect.LearnedDetector` or :class:`~curvdetect.VotingDetector`,
        which take images; a :class:`~curvdetect.CurvatureThresholdDetector` of
        curvatures; or a scikit-learn classifier with ``decision_function`` on the
        features. A copy is fitted. By default "learned"; with a `featurizer`,
        "threshold".
    random_state : int, optional
        Seed of what is fitted; 0 by default. Must be left out with a `featurizer`.
    companion : ART classifier, Companion, TorchModel or torch.nn.Module, optional
        A second classifier that a learned detector asks about every image. A bare
        module gets the same inputs as the network of `classifier`.

    Attributes
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Featurizer and detector, or the learned detector alone; fitted by :meth:`fit`.

    Raises
    ------
    TypeError
        If a parameter is of another type than it must be.
    ValueError
        If `classifier` is no PyTorchClassifier that predicts by its network, or a
        parameter is not allowed, or not beside another.

    Examples
    --------
    See ``docs/examples/art_detector.py``.
    """

    defence_params: ClassVar[list[str]] = [
        "classifier",
        "target_fpr",
        "featurizer",
        "detector",
        "random_state",
        "companion",
    ]

    def __init__(
        self,
        classifier: Any,
        *,
        target_fpr: float | None = None,
        featurizer: CurvatureFeaturizer | None = None,
        detector: Any = None,
        random_state: int | None = None,
        companion: Any = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.target_fpr = target_fpr
        self.featurizer = featurizer
        self.detector = detector
        self.random_state = random_state
        self.companion = companion
        self._check_params()
        self.pipeline: Any = None
        self._fitted_with: dict[str, Any] = {}

    def fit(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        **kwargs: Any,
    ) -> None:
        """Learn, and calibrate on clean images.

        Parameters
        ----------
        x : array of shape (n_samples, *input_shape)
            Clean images; or, with `y`, clean and adversarial ones.
        y : array of shape (n_samples,), (n_samples, 1) or (n_samples, 2), optional
            0 clean, 1 adversarial, or one-hot; not the classes of the images. The
            threshold is that of clean images. A learned detector learns from
            adversarial ones beside its own attacks, whether they fool the network or
            not (:meth:`LearnedDetector.fit <curvdetect.LearnedDetector.fit>`); a
            classifier of features learns from both; others cannot, and say so. Where
            all are clean it is as if `y` were left out.
        batch_size, nb_epochs, **kwargs
            Not used: the model knows its batch size, and nothing is trained in epochs.

        Raises
        ------
        TypeError, ValueError
            If the classifier, a parameter, the images or the labels are not allowed.

        Warns
        -----
        UserWarning
            If adversarial images are not learned from, `y` seems to hold classes, or
            images lie slightly outside ``clip_values``; and as the detector warns.
        """
        self._check_params()
        model = model_from_art(self.classifier)
        images = within(x, model.bounds)
        adversarial = adversarial_rows(y, len(images))
        warn_of_classes(model, images, adversarial)
        featurizer, detector = self._asked().parts(model)
        if featurizer is None:
            _fit_on_images(detector, images, adversarial)
            pipeline = make_pipeline(detector)
        else:
            _fit_on_features(featurizer, detector, images, adversarial)
            pipeline = make_pipeline(featurizer, detector)
        self.pipeline = pipeline
        self._fitted_with = {**self.get_params(), "weights": model.weights_digest()}

    def detect(
        self, x: npt.NDArray[Any], batch_size: int = 128, **kwargs: Any
    ) -> tuple[dict[str, Any], npt.NDArray[np.bool_]]:
        """Tell adversarial images from clean ones.

        Parameters
        ----------
        x : array of shape (n_samples, *input_shape)
            Images.
        batch_size, **kwargs
            Not used.

        Returns
        -------
        report : dict
            "scores", of shape (n_samples,), positive where an image is flagged.
            "predictions", of shape (n_samples, 2), as ART's binary detectors give
            them: logits of clean and adversarial, 0 and the score.
        is_adversarial : ndarray of shape (n_samples,), bool
            Whether each image is flagged.

        Raises
        ------
        ValueError
            If :meth:`fit` was not called, or not since a parameter or the weights of
            the network were changed; or the images are not what they must be.

        Warns
        -----
        UserWarning
            If images lie slightly outside ``clip_values``.
        """
        if self.pipeline is None:
            raise ValueError("detect needs a fitted detector: call fit(x) first")
        model = self.pipeline[0].model_
        self._check_unchanged(model.weights_digest())
        images = within(x, model.bounds)
        scores, flagged = np.zeros(0), np.zeros(0, dtype=np.bool_)
        if len(images):  # a share of attacks that succeed may be none
            flagged, scores = self._verdict(images)
        # A score that rounds to 0 must not contradict the verdict.
        least = np.where(flagged, np.finfo(np.float64).tiny, -np.inf)
        most = np.where(flagged, np.inf, 0.0)
        logits = np.stack([np.zeros_like(scores), scores.clip(least, most)], axis=1)
        return {"scores": scores, "predictions": logits}, flagged

    def _verdict(
        self, images: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        detector = self.pipeline[-1]
        if isinstance(detector, ImageDetector):
            found = detector.examine(images)
            return found.flagged, found.score - detector.threshold_
        return verdict(detector, self.pipeline[:-1].transform(images))

    def set_params(self, **kwargs: Any) -> None:
        """Change parameters; :meth:`detect` asks for a new :meth:`fit` then.

        Parameters
        ----------
        **kwargs
            Those of the constructor.

        Raises
        ------
        TypeError, ValueError
            If one is unknown or not allowed. None is changed then.
        """
        unknown = sorted(kwargs.keys() - set(self.defence_params))
        if unknown:
            raise ValueError(
                f"parameters must be some of {self.defence_params}; got {unknown}"
            )
        before = self.get_params()
        try:
            super().set_params(**kwargs)
        except (TypeError, ValueError):
            for name, value in before.items():
                setattr(self, name, value)
            raise

    def _asked(self) -> Asked:
        detector, of_its_own = self.detector, getattr(self.detector, "companion", None)
        bare = companion_from(of_its_own, self.classifier)
        if bare is not of_its_own:
            detector = clone(detector).set_params(companion=bare)
        return Asked(
            detector=detector,
            featurizer=self.featurizer,
            companion=companion_from(self.companion, self.classifier),
            target_fpr=self.target_fpr,
            random_state=self.random_state,
        )

    def _check_params(self) -> None:
        check_classifier(self.classifier)
        self._asked().check(uncompiled(self.classifier.model))

    def _check_unchanged(self, weights: str) -> None:
        now = {**self.get_params(), "weights": weights}
        changed = [
            name
            for name, value in now.items()
            if _differ(value, self._fitted_with[name])
        ]
        if changed:
            raise ValueError(
                "detect needs a detector that was fitted with what it has now; changed "
                f"since fit: {', '.join(changed)}. Call fit again"
            )


def _differ(new: Any, old: Any) -> bool:
    """Say whether another value was set; of objects, whether it is another object."""
    if isinstance(new, Number | str) and isinstance(old, Number | str):
        return bool(new != old)
    return new is not old


def _fit_on_images(
    detector: Any, images: npt.NDArray[Any], adversarial: npt.NDArray[np.bool_]
) -> None:
    """Fit a detector that looks at images itself."""
    clean, attacked = images[~adversarial], images[adversarial]
    if not len(attacked):
        detector.fit(clean)
    elif isinstance(detector, LearnedDetector):
        detector.fit(clean, adversarial=attacked)
    else:
        _warn_of_unused(detector, len(attacked))
        detector.fit(clean)


def _fit_on_features(
    featurizer: CurvatureFeaturizer,
    detector: Any,
    images: npt.NDArray[Any],
    adversarial: npt.NDArray[np.bool_],
) -> None:
    """Fit a featurizer on clean images, and a detector on features."""
    tagged = hasattr(detector, "__sklearn_tags__")  # others have no fit by labels
    learns = tagged and get_tags(detector).target_tags.required
    if learns and not adversarial.any():
        raise ValueError(
            "y must say which images are clean, 0, and which adversarial, 1, for "
            f"{type(detector).__name__}, which learns from both; got clean ones alone"
        )
    if not learns and adversarial.any():
        _warn_of_unused(detector, int(adversarial.sum()))
    featurizer.fit(images[~adversarial])
    if learns:
        detector.fit(featurizer.transform(images), _labels_for(detector, adversarial))
    else:
        detector.fit(featurizer.transform(images[~adversarial]))
    check_detects(detector)


def _labels_for(
    detector: Any, adversarial: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return 1 for adversarial images; 0, for a detector that wants it so."""
    other = isinstance(detector, CurvatureThresholdDetector) and detector.pos_label == 0
    return (adversarial != other).astype(np.int64)


def _warn_of_unused(detector: Any, n: int) -> None:
    warn(
        f"{type(detector).__name__} is fitted on clean images alone: the {n} "
        'adversarial ones are not used. detector="learned" learns from them'
    )
