"""An evasion detector of the Adversarial Robustness Toolbox (extra "art")."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn

from curvdetect._base.checks import check_choice, check_share
from curvdetect._base.extras import require
from curvdetect.estimators._image_detector import ImageDetector
from curvdetect.estimators.detector import (
    CurvatureThresholdDetector,
    check_detects,
    verdict,
)
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.network import TorchModel
from curvdetect.network.modules import device_of

__all__ = ["CurvatureEvasionDetector", "model_from_art"]

#: Images on which the wrapped network must answer as the classifier does, and how
#: nearly, in parts of the largest logit: kernels may differ.
_N_COMPARED, _PRECISION = 4, 1e-3

require("art", extra="art")
from art.defences.detector.evasion import EvasionDetector  # noqa: E402


def model_from_art(classifier: Any) -> TorchModel:
    """Wrap the network of an ART classifier, with its bounds and normalisation.

    The classifier predicts a few random images, and so does what is returned: if they
    do not agree, the classifier does more than to call its network.

    Parameters
    ----------
    classifier : art.estimators.classification.PyTorchClassifier
        The classifier.

    Returns
    -------
    TorchModel
        The same network.

    Raises
    ------
    ValueError
        If it has no torch module, preprocesses images in another way than by a mean
        and a standard deviation, has postprocessing defences, or predicts otherwise
        than its network does: a smoothed classifier of ART, say.
    """
    module = getattr(classifier, "model", None)
    if not isinstance(module, nn.Module):
        raise ValueError(
            "classifier must be a PyTorchClassifier of ART; got "
            f"{type(classifier).__name__}"
        )
    if getattr(classifier, "preprocessing_defences", None):
        raise ValueError(
            "classifier must not have preprocessing defences; put them into the "
            "network, or give TorchModel a module that includes them"
        )
    if getattr(classifier, "postprocessing_defences", None):
        raise ValueError(
            "classifier must not have postprocessing defences, which hide its logits; "
            "give the classifier without them"
        )
    mean, std = _normalisation(classifier)
    clip: Any = classifier.clip_values
    bounds = None if clip is None else (float(np.min(clip[0])), float(np.max(clip[1])))
    with warnings.catch_warnings():
        # ART leaves the mode to its methods; so does TorchModel.
        warnings.filterwarnings("ignore", message="module is in training mode")
        model = TorchModel(
            module,
            input_shape=tuple(classifier.input_shape),
            bounds=bounds,
            mean=mean,
            std=std,
        )
    _check_predictions(classifier, model)
    return model


def _check_predictions(classifier: Any, model: TorchModel) -> None:
    """Refuse a classifier that predicts otherwise than by calling its network."""
    low, high = model.bounds or (0.0, 1.0)
    rng = np.random.default_rng(0)
    shape = (_N_COMPARED, *tuple(classifier.input_shape))
    images = rng.uniform(low, high, shape).astype(np.float32).clip(low, high)
    name = type(classifier).__name__
    with _undisturbed(model.module):
        try:
            expected = np.asarray(classifier.predict(images.copy()))
        except Exception as error:
            raise ValueError(
                f"classifier must predict images of its input_shape, {shape[1:]}; "
                f"{name}.predict raises {type(error).__name__}: {error}"
            ) from error
    logits = model.predict_logits(images)
    tolerance = _PRECISION * np.abs(logits).max()
    if expected.shape == logits.shape and np.allclose(
        expected, logits, rtol=0, atol=tolerance
    ):
        return
    raise ValueError(
        f"classifier must predict by its network alone; {name} predicts something else "
        "on random images (does it smooth, vote, or defend itself?). Give a "
        "PyTorchClassifier of the network, or put what it does into the network"
    )


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Put back what predicting may change: training modes, random number generators."""
    modes = [(part, part.training) for part in module.modules()]
    state = np.random.get_state()  # noqa: NPY002
    device = device_of(module)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        for part, training in modes:
            part.training = training


def _normalisation(
    classifier: Any,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the mean and standard deviation that an ART classifier applies."""
    standard: Any = getattr(classifier, "preprocessing", None)
    if standard is None:
        return None, None
    if not (hasattr(standard, "mean") and hasattr(standard, "std")):
        raise ValueError(
            "classifier must preprocess images by a mean and a standard deviation, or "
            f"not at all; got {type(standard).__name__}"
        )
    mean, std = (np.ravel(value) for value in (standard.mean, standard.std))
    if not (np.any(mean != 0) or np.any(std != 1)):
        return None, None
    n_channels = classifier.input_shape[0]
    sizes = {mean.size, std.size} - {1}
    if sizes and (not classifier.channels_first or sizes != {n_channels}):
        raise ValueError(
            "classifier.preprocessing must have one mean and one standard deviation, "
            f"or one for each of the {n_channels} channels, which come first; got "
            f"{mean.size} and {std.size} values, channels_first="
            f"{classifier.channels_first}"
        )
    mean, std = (np.broadcast_to(value, n_channels) for value in (mean, std))
    return tuple(map(float, mean)), tuple(map(float, std))


class CurvatureEvasionDetector(EvasionDetector):
    """Detect evasion by what attacks on this very classifier look like, inside ART.

    Parameters
    ----------
    classifier : art.estimators.classification.PyTorchClassifier
        The classifier to guard.
    target_fpr : float, default=0.01
        Share of clean images that may be flagged.
    featurizer : CurvatureFeaturizer, optional
        For a detector of features; a copy is fitted.
    detector : {"learned", "threshold"} or estimator, optional
        As in :class:`~curvdetect.GuardedClassifier`: a
        :class:`~curvdetect.LearnedDetector`, which measures by itself; a
        :class:`~curvdetect.CurvatureThresholdDetector` of curvatures; or a scikit-learn
        classifier with ``decision_function`` on the features. A copy is fitted;
        ``target_fpr`` is not used for an estimator. By default "learned"; with a
        `featurizer`, "threshold".
    random_state : int, default=0
        Of what is fitted by default.

    Attributes
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Featurizer and detector, or the learned detector alone; fitted by :meth:`fit`.

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
    ]

    def __init__(
        self,
        classifier: Any,
        *,
        target_fpr: float = 0.01,
        featurizer: CurvatureFeaturizer | None = None,
        detector: Any = None,
        random_state: int = 0,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.target_fpr = target_fpr
        self.featurizer = featurizer
        self.detector = detector
        self.random_state = random_state
        self._check_params()
        self.pipeline: Any = None

    def fit(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        **kwargs: Any,
    ) -> None:
        """Calibrate on images.

        Parameters
        ----------
        x : array of shape (n_samples, *input_shape)
            Clean images; or, with `y`, clean and adversarial ones.
        y : array of shape (n_samples,) or (n_samples, 2), optional
            0 clean, 1 adversarial; one-hot rows are taken too. A learned detector
            makes its own attacks and takes the clean images alone: give it yours as
            ``detector=LearnedDetector(attacks=...)``.
        batch_size, nb_epochs, **kwargs
            Not used: the model knows its batch size, and nothing is trained in epochs.

        Raises
        ------
        ValueError
            If the classifier, a parameter, the images or the labels are not allowed.
        """
        model = model_from_art(self.classifier)
        labels = None if y is None else np.asarray(y)
        if labels is not None and labels.ndim == 2:
            labels = labels.argmax(axis=1) if labels.shape[1] > 1 else labels.ravel()
        if isinstance(detector := self._detector(model), ImageDetector):
            clean = x if labels is None else _clean(x, labels)
            self.pipeline = make_pipeline(detector.fit(clean))
            return
        featurizer = (
            CurvatureFeaturizer(model, random_state=self.random_state)
            if self.featurizer is None
            else clone(self.featurizer).set_params(model=model)
        )
        pipeline = make_pipeline(featurizer, detector).fit(x, labels)
        check_detects(pipeline[-1])
        self.pipeline = pipeline

    def _detector(self, model: TorchModel) -> Any:
        """Return what is to be fitted."""
        asked = self.detector
        if asked is None:
            asked = "learned" if self.featurizer is None else "threshold"
        if asked == "threshold":
            return CurvatureThresholdDetector(target_fpr=self.target_fpr)
        if asked != "learned" and not isinstance(asked, ImageDetector):
            return clone(asked)
        if self.featurizer is not None:
            raise ValueError(
                "featurizer must be left out where the detector is learned, which "
                f"measures by itself; got {self.featurizer!r}"
            )
        if asked == "learned":
            asked = LearnedDetector(
                target_fpr=self.target_fpr, random_state=self.random_state
            )
        return clone(asked).set_params(model=model)

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
            "scores", larger for adversarial images, and "predictions", 0 or 1.
        is_adversarial : ndarray of shape (n_samples,), bool
            Whether each image is flagged.

        Raises
        ------
        ValueError
            If :meth:`fit` was not called.
        """
        if self.pipeline is None:
            raise ValueError("detect needs a fitted detector: call fit(x) first")
        detector = self.pipeline[-1]
        if isinstance(detector, ImageDetector):
            found = detector.examine(x)
            flagged, scores = found.flagged, found.score - detector.threshold_
        else:
            flagged, scores = verdict(detector, self.pipeline[:-1].transform(x))
        return {"scores": scores, "predictions": flagged.astype(int)}, flagged

    def _check_params(self) -> None:
        check_share("target_fpr", self.target_fpr)
        if isinstance(self.detector, str):
            check_choice("detector", self.detector, ("learned", "threshold"))


def _clean(x: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the clean ones of labelled images."""
    if labels.shape != (len(x),) or not np.isin(labels, (0, 1)).all():
        raise ValueError(
            "y must be 0 for clean and 1 for adversarial images, one for each; got "
            f"shape {labels.shape} and the values {np.unique(labels)[:5]}"
        )
    return x[labels == 0]
