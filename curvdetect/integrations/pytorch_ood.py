"""A detector of pytorch-ood, and its detectors beside our features (extra "ood")."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)
from torch import Tensor, nn

from curvdetect._base.checks import check_choice, check_count
from curvdetect._base.extras import require
from curvdetect._base.warn import warn
from curvdetect.attacks import KINDS
from curvdetect.attacks.effort import effort_for
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.estimators.detector import check_target_fpr
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.estimators.state import module_of
from curvdetect.integrations._batches import (
    Sample,
    images_and_labels,
    in_distribution,
)
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array, as_flat_array
from curvdetect.network.checks import check_input_shape, check_shape
from curvdetect.signals import Companion

__all__ = ["CurvatureDetector", "DetectorScores"]

require("pytorch_ood", extra="ood")
from pytorch_ood.api import (  # noqa: E402
    Detector,
    DetectorInfo,
    GradientDetector,
    ModelNotSetException,
    RequiresFittingException,
    Task,
)

#: What pytorch-ood's searches try by default; other parameters may be searched too.
_SPACES: dict[str, dict[str, list[Any]]] = {
    "learned": {
        "budget": [3.0, 6.0],
        "kinds": [KINDS, *((kind,) for kind in KINDS)],
    },
    "threshold": {"at": ["boundary", "input"], "n_boundaries": [None, 1]},
}
#: Clean images whose curvatures say what a usual one is.
_N_USUAL = 100
#: Where values are further outside the range of the images of fit, in parts of it,
#: there is a warning.
_FAR = 0.25


class CurvatureDetector(GradientDetector):
    """Score images by what attacks on this network look like.

    It is a ``GradientDetector``: it computes gradients of its input, so pytorch-ood's
    benchmarks and searches do not call it under ``torch.no_grad``.

    It is made to detect attacks, not other data sets. On the LeNet for Fashion-MNIST,
    against 2,000 test images, its AUROC is 0.997 (0.996-0.998) for 1,648 test images
    after PGD at 16/255, where pytorch-ood's energy score has 0.502 (0.484-0.521). For
    2,000 images of MNIST it is 0.880 (0.870-0.891), and 0.829 with another seed, where
    the energy score has 0.872 (0.861-0.882) (``python -m benchmarks other-data``).

    Parameters
    ----------
    model : TorchModel, torch.nn.Module or bound method of one
        The network, which returns logits. A TorchModel gives the range of image values.
        Otherwise the images that it is fitted on, normalised or not, give it: 0 to 1 if
        they lie within, or else from their smallest value to their largest. Images
        beyond that range are moved onto it, with a warning if they lie far outside.
    detector : {"learned", "threshold"}, default="learned"
        A :class:`~curvdetect.LearnedDetector`; or, as in 0.1, the largest average
        curvature of the boundaries around an image.
    **parameters
        Parameters of the learned detector, such as ``companion``; by default
        ``random_state=0`` and ``self_test=False``. Or those of the
        :class:`~curvdetect.CurvatureFeaturizer`, whose features must be curvatures, one
        for each class.

    Attributes
    ----------
    estimator : LearnedDetector or CurvatureFeaturizer
        What measures images.
    device : torch.device or None
        Where the network is; None if that is unknown.
    hyperparameter_space : dict of str to list
        What ``pytorch_ood.utils.GridSearch`` tries by default: ``budget`` and ``kinds``
        of the learned detector, or ``at`` and ``n_boundaries`` of the featurizer. A
        search may be given other parameters of these.

    Examples
    --------
    See ``docs/examples/pytorch_ood_detector.py``.
    """

    requires_fit = True
    hyperparameter_space = _SPACES["learned"]
    # Written with an assistant, which is what that field asks.
    info: ClassVar[DetectorInfo | None] = DetectorInfo(
        tasks={Task.CLASSIFICATION}, ai_coded=True
    )

    def __init__(
        self,
        model: TorchModel | nn.Module | Callable[[Tensor], Tensor] | None,
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
        self.estimator = kind(_network(model), **{**usual, **parameters})
        _check_features(self.estimator)
        self.hyperparameter_space = dict(_SPACES[detector])

    # Hyperparameters --------------------------------------------------------

    def get_hyperparameters(self) -> dict[str, Any]:
        """Return what :meth:`set_hyperparameters` sets, as it is now.

        Returns
        -------
        dict of str to object
            For each name in ``hyperparameter_space``.
        """
        parameters = self.estimator.get_params(deep=False)
        return {name: parameters[name] for name in self.hyperparameter_space}

    def set_hyperparameters(self, **hyperparameters: Any) -> CurvatureDetector:
        """Set parameters of the next fit; what was fitted with others is forgotten.

        Parameters
        ----------
        **hyperparameters
            By the names in ``hyperparameter_space``. Values are checked by :meth:`fit`.

        Returns
        -------
        CurvatureDetector
            Itself, to be fitted.

        Raises
        ------
        ValueError
            If one is not in that space, or no parameter of the estimator.
        """
        parameters = self.estimator.get_params(deep=False)
        wrong = hyperparameters.keys() - (
            self.hyperparameter_space.keys() & (parameters.keys() - {"model"})
        )
        if wrong:
            raise ValueError(
                "hyperparameters must be parameters of "
                f"{type(self.estimator).__name__} in hyperparameter_space, which has "
                f"{list(self.hyperparameter_space)}; got {sorted(wrong)}"
            )
        # Not a clone, which would copy a user's attacks, and the networks in them.
        estimator = type(self.estimator)(**{**parameters, **hyperparameters})
        _check_features(estimator)
        self.estimator = estimator
        return self

    # Fitting ----------------------------------------------------------------

    def fit(self, data_loader: Any) -> CurvatureDetector:
        """Learn from clean images.

        Parameters
        ----------
        data_loader : DataLoader
            Batches (x, y), x, or dictionaries that hold them under usual names
            ("image", "pixel_values", "x"; "label", "y", "target"). Those with y < 0,
            which are out of distribution, are left out; nothing else is taken from y.
            It is gone through once, and a random sample is kept, three times as many as
            are learned from: 3,000 images, of photographs 600.

        Returns
        -------
        CurvatureDetector
            Itself.

        Raises
        ------
        ModelNotSetException
            If there is no model.
        TypeError
            If a batch is something else.
        ValueError
            If there are no images, none in distribution, not a label for each, or
            images of different shapes.
        """
        network = self._given()
        seed = check_random_state(self.estimator.random_state).randint(2**31 - 1)
        sample, n_given = Sample(self._n_kept, int(seed)), [0, 0]

        def known() -> Iterator[Tensor]:
            for batch in data_loader:
                images, labels = images_and_labels(batch)
                n_given[0] += 1
                n_given[1] += len(images)
                yield in_distribution(images, labels)

        sample.extend(known())
        if not n_given[0]:
            raise ValueError("data_loader must hold at least one batch; got none")
        if not sample.n_seen:
            raise ValueError(
                "data_loader must hold images in distribution, with labels of at least "
                f"0; got {n_given[1]} images, none of them"
            )
        images = as_array(sample.images())
        model = _with_bounds(network, sample)
        with warnings.catch_warnings():
            # Scores alone are asked for: nothing is done at that rate.
            warnings.filterwarnings("ignore", message="the rate of false positives is")
            self.estimator.set_params(model=model).fit(images)
        if isinstance(self.estimator, CurvatureFeaturizer):
            self._usual = self._usual_range(images[:_N_USUAL])
        return self

    def _given(self) -> TorchModel | nn.Module:
        """Return the network, or raise where there is none."""
        network = _network(self.model)
        if network is None:
            raise ModelNotSetException("model must be a network; got None")
        return network

    def _n_kept(self, n_values: int) -> int:
        """Return how many images of so many values can make a difference."""
        target_fpr = getattr(self.estimator, "target_fpr", None)
        check_target_fpr(target_fpr)
        n_learned = effort_for(n_values).n_learned
        for_threshold = math.ceil(2 / (target_fpr or 0.01))
        return max(3 * n_learned, n_learned + for_threshold)

    def _usual_range(self, images: npt.NDArray[Any]) -> tuple[float, float]:
        """Return the largest curvature around clean images, and how they spread."""
        with warnings.catch_warnings():  # it comes again with the images scored
            warnings.filterwarnings("ignore", message="no boundary was found")
            found = _largest(self.estimator.transform(images))
        found = found[np.isfinite(found)]
        if not found.size:
            return 0.0, 1.0
        return float(found.max()), float(np.ptp(found)) or 1.0

    # Scoring ----------------------------------------------------------------

    def predict(self, x: Tensor) -> Tensor:
        """Score images.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images, on any device; also none.

        Returns
        -------
        Tensor of shape (n,)
            Where the network is. Larger means more anomalous: log-odds of an attack. Or
            the largest average curvature c, in 1 / input units: as it is up to the
            largest one t of clean images, which spread over r; above it t + r s /
            (1 + s) with s = (c - t) / r, and t + r where there is no boundary at all,
            so that such an image has the largest score, and not one that is larger than
            others by orders of magnitude.

        Raises
        ------
        ModelNotSetException
            If there is no model.
        RequiresFittingException
            If :meth:`fit` was not called, or hyperparameters were set since.
        ValueError
            If the images are not what they must be.

        Warns
        -----
        UserWarning
            If values are far outside of those that a bare network was fitted with.
        """
        network = self._given()
        if not self.estimator.__sklearn_is_fitted__():
            raise RequiresFittingException()
        device = self.device or x.device
        if not len(x):
            return torch.empty(0, device=device)
        images = as_array(x.detach())
        if not isinstance(network, TorchModel):
            images = _within(images, self.estimator.model_.bounds)
        if isinstance(self.estimator, LearnedDetector):
            score = self.estimator.score_samples(images)
        else:
            score = _drawn_in(_largest(self.estimator.transform(images)), *self._usual)
        return torch.from_numpy(score).to(dtype=torch.float32, device=device)

    # Devices ----------------------------------------------------------------

    @property
    def device(self) -> torch.device | None:
        """Where the network is."""
        for network in self._networks():
            module = module_of(network)
            for tensor in chain(module.parameters(), module.buffers()):
                return tensor.device
        held: torch.device | None = getattr(self, "_device", None)
        return held

    def to(self, device: str | torch.device) -> CurvatureDetector:
        """Move the network, and a companion.

        Parameters
        ----------
        device : str or torch.device
            Where to.

        Returns
        -------
        CurvatureDetector
            Itself.
        """
        self._device = torch.device(device)
        for network in self._networks():
            module_of(network).to(self._device)
            if isinstance(network, TorchModel) and network.device is not None:
                network.device = self._device
        return self

    def _networks(self) -> Iterator[TorchModel | nn.Module]:
        """Yield all networks, the guarded one first; some of them more than once."""
        held = vars(self.estimator)
        names = ("model_", "companion", "companion_")
        for value in (_network(self.model), *map(held.get, names)):
            network = value.model if isinstance(value, Companion) else value
            if network is not None:
                yield network


class _Method(nn.Module):
    """A method of a module, as a module."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self.owner, self.name = owner, name
        self.training = owner.training

    def forward(self, x: Tensor) -> Any:
        """Call it."""
        return getattr(self.owner, self.name)(x)


def _network(model: Any) -> TorchModel | nn.Module | None:
    """Return a model as a network; None where there is none.

    Raises
    ------
    TypeError
        If it is something else than a network, or a bound method of one.
    """
    owner = getattr(model, "__self__", None)
    if isinstance(owner, nn.Module):
        name = model.__name__
        return owner if name == "forward" else _Method(owner, name)
    if model is None or isinstance(model, TorchModel | nn.Module):
        return model
    raise TypeError(
        "model must be a TorchModel, a torch.nn.Module or a bound method of one; got "
        f"{type(model).__name__}"
    )


def _with_bounds(network: TorchModel | nn.Module, sample: Sample) -> TorchModel:
    """Return a network with bounds: its own, or what was seen."""
    if isinstance(network, TorchModel):
        return network
    low, high = sample.low, sample.high
    if not low < high or (low >= 0 and high <= 1):  # or NaN, which fit refuses
        low, high = 0.0, 1.0
    shape = tuple(sample.images().shape[1:])
    return TorchModel(network, input_shape=shape, bounds=(low, high))


def _check_features(estimator: Any) -> None:
    """Refuse a featurizer of other features than curvatures."""
    features = getattr(estimator, "features", ("curvature",))
    if isinstance(features, str) or tuple(features) != ("curvature",):
        raise ValueError(
            f"features must be curvature alone, which is the score; got {features!r}"
        )


def _within(
    images: npt.NDArray[Any], bounds: tuple[float, float] | None
) -> npt.NDArray[Any]:
    """Move values onto the bounds; what is not finite is left to be refused."""
    if bounds is None or not np.isfinite(images).all():
        return images
    low, high = bounds
    way = max(low - images.min(), images.max() - high)
    if way > _FAR * (high - low):
        warn(
            f"x has values from {images.min():.3g} to {images.max():.3g}, far outside "
            f"of those that the detector was fitted on, {low:.3g} to {high:.3g}; they "
            "are moved onto that range. Give a TorchModel with bounds if they are meant"
        )
    return images.clip(low, high)


def _largest(curvature: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the largest curvature around each image; infinity without a boundary."""
    there = ~np.isnan(curvature)
    largest = np.where(there, curvature, -np.inf).max(axis=1)
    return np.where(there.any(axis=1), largest, np.inf).astype(np.float64)


def _drawn_in(
    score: npt.NDArray[np.float64], top: float, room: float
) -> npt.NDArray[np.float64]:
    """Map what is above `top` between it and `top + room`, in its order."""
    above = np.maximum(score - top, 0) / room
    with np.errstate(invalid="ignore"):
        share = np.where(np.isinf(above), 1.0, above / (1 + above))
    return np.minimum(score, top) + room * share


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
