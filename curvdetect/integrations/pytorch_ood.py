"""A detector of pytorch-ood, and its detectors beside our features (extra "ood")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

from curvdetect._base.checks import check_count
from curvdetect._base.extras import require
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array, as_flat_array
from curvdetect.network.checks import check_input_shape, check_shape

__all__ = ["CurvatureDetector", "DetectorScores"]

require("pytorch_ood", extra="ood")
from pytorch_ood.api import Detector, RequiresFittingException  # noqa: E402

#: Score of an image without any boundary: large, but fit for their metrics.
_NO_BOUNDARY = 1e6


class CurvatureDetector(Detector):
    """Score images by the largest average curvature of the boundaries around them.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The network.
    **parameters
        Of :class:`~curvdetect.CurvatureFeaturizer`: ``at``, ``step``,
        ``random_state`` and others. The features are curvatures, one for each class.

    Examples
    --------
    See ``docs/examples/pytorch_ood_detector.py``.
    """

    requires_fit = True

    def __init__(self, model: TorchModel | torch.nn.Module, **parameters: Any) -> None:
        self.model = model
        self.featurizer = CurvatureFeaturizer(
            model, **{"random_state": 0, **parameters}
        )
        features = self.featurizer.features
        if isinstance(features, str) or tuple(features) != ("curvature",):
            raise ValueError(
                "features must be curvature alone, which is the score; got "
                f"{features!r}"
            )

    def fit(self, data_loader: Any) -> CurvatureDetector:
        """Learn the finite step from clean images.

        Parameters
        ----------
        data_loader : DataLoader
            Batches (x, y) or x of clean images; those with y < 0, which are out of
            distribution, are left out.

        Returns
        -------
        CurvatureDetector
            Itself.
        """
        batches = [
            batch[0][batch[1] >= 0] if isinstance(batch, list | tuple) else batch
            for batch in data_loader
        ]
        if not batches:
            raise ValueError("data_loader must hold at least one batch; got none")
        self.featurizer.fit(torch.cat(batches).cpu().numpy())
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
            The largest average curvature, in 1 / input units; larger means more
            anomalous. An image without any boundary gets a score above all others.

        Raises
        ------
        RequiresFittingException
            If :meth:`fit` was not called.
        """
        if not hasattr(self.featurizer, "step_"):
            raise RequiresFittingException()
        curvature = self.featurizer.transform(x.detach().cpu().numpy())
        nothing = np.isnan(curvature).all(axis=1)
        largest = np.where(np.isnan(curvature), -np.inf, curvature).max(axis=1)
        largest[nothing] = _NO_BOUNDARY
        return torch.from_numpy(largest).to(dtype=torch.float32, device=x.device)

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
        module = self.model.module if isinstance(self.model, TorchModel) else self.model
        module.to(device)
        if isinstance(self.model, TorchModel) and self.model.device is not None:
            self.model.device = device
        self._device = torch.device(device)
        return self


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

    _shared_parameter = "detector"

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
        self.input_shape_ = wanted or shape or values.shape[1:]
        check_shape((len(values), *(shape or values.shape[1:])), self.input_shape_)
        return self

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
