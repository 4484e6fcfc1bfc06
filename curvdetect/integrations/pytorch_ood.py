"""A detector of pytorch-ood, and its detectors beside our features (extra "ood")."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)
from torch import Tensor, nn

from curvdetect._base.checks import check_choice, check_count
from curvdetect._base.extras import require
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.estimators.state import module_of
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array, as_flat_array
from curvdetect.network.checks import check_input_shape, check_shape

__all__ = ["CurvatureDetector", "DetectorScores"]

require("pytorch_ood", extra="ood")
from pytorch_ood.api import (  # noqa: E402
    Detector,
    DetectorInfo,
    GradientDetector,
    RequiresFittingException,
    Task,
)

#: Score of an image without any boundary: large, but fit for their metrics.
_NO_BOUNDARY = 1e6
#: What batches that are dictionaries call images and labels.
_IMAGES = ("image", "images", "pixel_values", "img", "x", "input", "inputs", "data")
_LABELS = ("label", "labels", "y", "target", "targets")


class CurvatureDetector(GradientDetector):
    """Score images by what attacks on this very network look like.

    A ``GradientDetector``: it takes gradients to its input, so pytorch-ood's benchmarks
    and searches do not call it under ``torch.no_grad``.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The network.
    detector : {"learned", "threshold"}, default="learned"
        A :class:`~curvdetect.LearnedDetector`; or, as 0.1 had it, the largest average
        curvature of the boundaries around an image.
    **parameters
        Of the learned detector, ``random_state=0`` and ``self_test=False`` by default;
        or of the :class:`~curvdetect.CurvatureFeaturizer`, of which the features are
        curvatures, one for each class.

    Attributes
    ----------
    estimator : LearnedDetector or CurvatureFeaturizer
        What looks at images.

    Examples
    --------
    See ``docs/examples/pytorch_ood_detector.py``.
    """

    requires_fit = True
    info: ClassVar[DetectorInfo | None] = DetectorInfo(tasks={Task.CLASSIFICATION})

    def __init__(
        self,
        model: TorchModel | torch.nn.Module,
        *,
        detector: Literal["learned", "threshold"] = "learned",
        **parameters: Any,
    ) -> None:
        check_choice("detector", detector, ("learned", "threshold"))
        self.model = model
        kind: Any = LearnedDetector if detector == "learned" else CurvatureFeaturizer
        wrong = parameters.keys() - kind().get_params().keys()
        if wrong:
            raise TypeError(
                f'parameters for detector="{detector}" must be those of '
                f"{kind.__name__}; got {sorted(wrong)}"
            )
        usual = {"random_state": 0}
        if detector == "learned":
            usual["self_test"] = False
        self.estimator = kind(model, **{**usual, **parameters})
        features = getattr(self.estimator, "features", ("curvature",))
        if isinstance(features, str) or tuple(features) != ("curvature",):
            raise ValueError(
                "features must be curvature alone, which is the score; got "
                f"{features!r}"
            )

    def fit(self, data_loader: Any) -> CurvatureDetector:
        """Learn from clean images.

        Parameters
        ----------
        data_loader : DataLoader
            Batches (x, y), x, or dictionaries that hold them under usual names
            ("image", "pixel_values", "x"; "label", "y", "target"). Those with y < 0,
            which are out of distribution, are left out; nothing else is taken from y.

        Returns
        -------
        CurvatureDetector
            Itself.

        Raises
        ------
        TypeError
            If a batch is something else.
        ValueError
            If there are no images, none in distribution, or not a label for each.
        """
        parts = [_images_and_labels(batch) for batch in data_loader]
        if not parts:
            raise ValueError("data_loader must hold at least one batch; got none")
        known = [_known(images, labels) for images, labels in parts]
        if not sum(map(len, known)):
            raise ValueError(
                "data_loader must hold images in distribution, with labels of at least "
                f"0; got {sum(len(images) for images, _ in parts)} images, none of them"
            )
        with warnings.catch_warnings():
            # Scores alone are asked for: nothing is done at that rate.
            warnings.filterwarnings("ignore", message="the rate of false positives is")
            self.estimator.fit(as_array(torch.cat(known)))
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Score images.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images.

        Returns
        -------
        Tensor of shape (n,)
            Larger means more anomalous: log-odds of an attack; or the largest average
            curvature, in 1 / input units, where an image without any boundary gets a
            score above all others.

        Raises
        ------
        RequiresFittingException
            If :meth:`fit` was not called.
        """
        if not self.estimator.__sklearn_is_fitted__():
            raise RequiresFittingException()
        images = as_array(x.detach())
        if isinstance(self.estimator, LearnedDetector):
            score = self.estimator.score_samples(images)
        else:
            curvature = self.estimator.transform(images)
            nothing = np.isnan(curvature).all(axis=1)
            score = np.where(np.isnan(curvature), -np.inf, curvature).max(axis=1)
            score[nothing] = _NO_BOUNDARY
        return torch.from_numpy(score).to(dtype=torch.float32, device=x.device)

    def to(self, device: str | torch.device) -> CurvatureDetector:
        """Move the network.

        Parameters
        ----------
        device : str or torch.device
            Where to.

        Returns
        -------
        CurvatureDetector
            Itself.
        """
        module_of(self.model).to(device)
        if isinstance(self.model, TorchModel) and self.model.device is not None:
            self.model.device = device
        self._device = torch.device(device)
        return self


def _images_and_labels(batch: Any) -> tuple[Tensor, Any]:
    """Return the two parts of a batch; None for labels that it has not."""
    labels = None
    if isinstance(batch, Mapping):
        images, labels = _named(batch, _IMAGES), _named(batch, _LABELS)
        others = [key for key in map(str, batch) if labels is None and "label" in key]
        if others:
            raise TypeError(
                "data_loader must call labels one of "
                f"{', '.join(_LABELS)}; got {others}"
            )
    elif isinstance(batch, list | tuple) and batch:
        images = batch[0]
        labels = batch[1] if len(batch) > 1 else None
    else:
        images = batch
    if not isinstance(images, Tensor):
        got = type(batch).__name__
        if isinstance(batch, Mapping):
            got += f" with the keys {list(batch)}"
        raise TypeError(
            "data_loader must give batches (x, y), x, or dictionaries with one of "
            f"{', '.join(_IMAGES)}, in which x is a tensor; got {got}"
        )
    return images.detach().cpu(), labels


def _named(batch: Mapping[Any, Any], names: Sequence[str]) -> Any:
    return next((batch[name] for name in names if name in batch), None)


def _known(images: Tensor, labels: Any) -> Tensor:
    """Return the images in distribution: those whose labels are not negative."""
    if labels is None:
        return images
    try:
        y = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"data_loader must give labels that are numbers; got {labels!r}"
        ) from error
    if y.shape not in ((len(images),), (len(images), 1)):
        raise ValueError(
            "data_loader must give one label for each image; got labels of shape "
            f"{tuple(y.shape)} for {len(images)} images"
        )
    return images[y.reshape(-1) >= 0]


class DetectorScores(SharedNetworkMixin, TransformerMixin, BaseEstimator):
    """Use the score of a pytorch-ood detector as a feature, beside curvatures.

    Parameters
    ----------
    detector : pytorch_ood.api.Detector
        Fitted, if it must be: on images and labels of the network's classes, which a
        pipeline that learns to detect attacks has no more. Shared by clones.
    input_shape : tuple of int, optional
        Shape of one image, for flattened ones.
    batch_size : int, default=256
        Images given to the detector at a time.

    Attributes
    ----------
    input_shape_ : tuple of int
        Shape of one image.
    n_features_in_ : int
        Number of values of one image.

    Notes
    -----
    Scores are looked up in no cache: pytorch-ood's detectors hash differently in each
    process.

    Examples
    --------
    >>> from pytorch_ood.detector import EnergyBased
    >>> from sklearn.pipeline import make_union
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.integrations.pytorch_ood import DetectorScores
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    >>> features = make_union(
    ...     CurvatureFeaturizer(model, random_state=0),
    ...     DetectorScores(EnergyBased(model.as_module())),
    ... )
    >>> features.fit_transform(X[:20]).shape
    (20, 11)
    """

    _shared_parameters = ("detector",)

    def __init__(
        self,
        detector: Detector,
        *,
        input_shape: Sequence[int] | None = None,
        batch_size: int = 256,
    ) -> None:
        self.detector = detector
        self.input_shape = input_shape
        self.batch_size = batch_size

    def fit(self, X: npt.ArrayLike | Tensor, y: Any = None) -> DetectorScores:
        """Learn the shape of the images.

        Parameters
        ----------
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
            Images.
        y : ignored
            For scikit-learn's pipelines.

        Returns
        -------
        DetectorScores
            Itself.

        Raises
        ------
        TypeError
            If `detector` is none of pytorch-ood's.
        ValueError
            If another parameter, or the images, are not allowed.
        """
        if not isinstance(self.detector, Detector):
            raise TypeError(
                "detector must be one of pytorch-ood; got "
                f"{type(self.detector).__name__}"
            )
        check_count("batch_size", self.batch_size)
        flat, shape = as_flat_array(X)
        values = validate_data(self, flat, dtype=[np.float64, np.float32])
        wanted = check_input_shape(self.input_shape)
        own = shape or values.shape[1:]
        check_shape((len(values), *own), wanted or own)
        self.input_shape_ = wanted or own
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "input_shape_")  # validation of X sets others before

    def transform(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.float64]:
        """Score images.

        Parameters
        ----------
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
            Images.

        Returns
        -------
        ndarray of shape (n_samples, 1)
            Scores: larger means more anomalous.
        """
        check_is_fitted(self)
        flat, shape = as_flat_array(X)
        values: npt.NDArray[Any] = validate_data(
            self, flat, reset=False, dtype=[np.float64, np.float32]
        )
        check_shape((len(values), *(shape or values.shape[1:])), self.input_shape_)
        images = torch.from_numpy(values.copy()).reshape(-1, *self.input_shape_)
        like = next(iter(self._weights()), images)
        scores = [
            self.detector.predict(batch.to(like)).detach().reshape(-1, 1)
            for batch in images.split(int(self.batch_size))
        ]
        return as_array(torch.cat(scores)).astype(np.float64)

    def get_feature_names_out(
        self, input_features: Any = None
    ) -> npt.NDArray[np.object_]:
        """Name the column after the detector.

        Parameters
        ----------
        input_features : array of str, optional
            Checked against the names seen at `fit`, not used.

        Returns
        -------
        ndarray of str
            One name, such as "energybased_score".
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        name = type(self.detector).__name__.lower()
        return np.asarray([f"{name}_score"], dtype=object)

    def _weights(self) -> list[Tensor]:
        """Return weights of the detector's network, for their device and precision."""
        held = vars(self.detector).values()
        modules = [value for value in held if isinstance(value, nn.Module)]
        return [weight for module in modules for weight in module.parameters()]
