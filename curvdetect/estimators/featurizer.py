"""`CurvatureFeaturizer`: from images to the curvature of the boundaries around them."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from joblib import Memory
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    check_memory,
    validate_data,
)
from torch import Tensor, nn

from curvdetect._base.checks import (
    check_choice,
    check_count,
    check_positive,
    check_steps,
)
from curvdetect._base.warn import warn
from curvdetect.estimators._features import arrange, measure_all, names_of_columns
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.estimators.state import as_model, bounds_for, warn_of_no_bounds
from curvdetect.geometry import CurvatureMethod, random_directions
from curvdetect.network import TorchModel, find_nearest_boundaries
from curvdetect.network.arrays import as_flat_array
from curvdetect.network.boundaries import diagonal
from curvdetect.network.checks import check_shape
from curvdetect.network.modules import dtype_of
from curvdetect.signals import (
    SIGNALS,
    Around,
    BoundarySignal,
    Curvature,
    Laplacian,
    Measured,
    Setup,
    Signal,
    Where,
    joint_cost,
    measure_signals,
    named_signals,
)

__all__ = ["CurvatureFeaturizer"]

_LOG = logging.getLogger(__name__)

#: Images from which step="auto" learns the typical distance to the boundary.
_N_SCALE_IMAGES = 256
#: Images with which fit tries the module.
_N_CHECK_IMAGES = 4
#: Images with which it tries the signals.
_N_TRIED_IMAGES = 2
#: Times the root of the precision, relative to the range of inputs: in float32 0.0035.
#: Rounding is 5 and 6 % of the median curvature of two LeNets there and 0.6 % of that
#: of a ResNet-20 (benchmarks/defaults/precision.py); it grows with 1 / step^2.
_SMALLEST_STEP = 10
#: Missing boundaries up to this share are a matter of course: NaN says enough.
_MISSING_SHARE = 0.05
#: With more classes, boundaries to all take thousands of passes an image, and a column
#: for each that is nearly always empty is a waste; so many boundaries then.
_MANY_CLASSES, _N_BOUNDARIES = 100, 5


class CurvatureFeaturizer(SharedNetworkMixin, TransformerMixin, BaseEstimator):
    r"""Measure the curvature of the decision boundaries around each image.

    For every other class j, a point z on the boundary between j and the predicted class
    i is found. The boundary's average curvature at z is a feature; it is positive where
    the region of i is locally convex. Around clean images it is negative on average;
    around an adversarial image, the boundary back to the original class bulges out and
    has a large curvature. So the largest feature tells adversarial images from clean
    ones, and its class is the original label.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The trained network. A bare module is wrapped in a :class:`TorchModel` with
        default settings and the shape of the images given to `fit`; if these lie
        outside [0, 1], it has no bounds, and a warning says so. Within a
        :class:`GuardedClassifier` it may be left out: the guard's is used.
    at : {"boundary", "input"}, default="boundary"
        Where the curvature is measured: at a boundary point, or, as a cheaper
        approximation, on the level set of the margin through the image itself.
    method : {"forward", "gradient", "autodiff"}, default="forward"
        How second derivatives are computed; see
        :func:`curvdetect.geometry.mean_curvature`.
    n_directions : int or "all", default=7
        Number of random directions to average over. "all" takes an orthonormal basis of
        d - 1 directions close to the pixel axes, without sampling error, at d / 7
        times the cost. For networks with kinks the two differ at a finite step, because
        a step along one pixel meets other kinks than a step spread over all pixels.
    step : "auto", float or sequence of float, default="auto"
        Finite step h, an L2 length in input units. "auto" takes the median distance of
        the images given to `fit` to their nearest boundary. Each of several steps gives
        a block of columns.
    n_boundaries : int or "all", optional
        How many boundaries to measure: those to the k nearest classes, by first-order
        distance, or all. By default all with up to 100 classes, and 5 with more. With
        many classes the k are chosen among those with the largest logits: twice k, at
        least ten, or seven with `n_curved`.
    n_curved : int, default=0
        How many of these k are chosen by their curvature at the image instead. Strong
        attacks lead far from the boundary that they crossed, weak ones stay near it.
        With ``n_boundaries=3, n_curved=2, n_directions=3`` the features cost less than
        a third of the default and detect both nearly as well.
    tol : float, default=0.1
        How near the search gets to a boundary before its last step: the linearised
        boundary is within `tol` times the distance from the image. Less than 1. The
        error after the last step is of second order if it crosses no kink. A margin
        that comes so close to zero without crossing it counts as a boundary. 1e-3
        costs some 50 forward passes more for ten classes.
    features : sequence of str or Signal, default=("curvature",)
        What is measured: names, or instances of classes of :mod:`curvdetect.signals` or
        of your own classes:

        - "curvature": average curvature of each boundary, in 1 / input units;
        - "distance": L2 distance to the point found on each boundary, in input units;
        - "laplacian": F(x) - mean of F(x + h u) over random unit steps u, for each
          margin F at the image itself, in logits (minus a Laplacian);
        - "logits": the logits minus the largest;
        - "first_order": distance to the two nearest boundaries by the gradient at the
          image, in input units.
    layout : {"class", "nearest"}, optional
        How the values of boundaries are arranged:

        - "class": a column for each class; NaN for the predicted class and where no
          boundary was asked for or found. The relabeler needs this layout.
        - "nearest": columns ordered by the distance of the boundary, without NaN, for
          any classifier. If a boundary was not found, its columns repeat those of the
          farthest one found; if none was found, curvature and laplacian are 0, and
          distance is the diagonal of the input range.

        By default "class"; with more than 100 classes, unless all boundaries are
        measured, "nearest": k columns instead of a thousand that are nearly all empty.
        :meth:`measure` gives the classes that they belong to.
    laplacian_step : float or sequence of float, optional
        Steps of the "laplacian" feature; by default those of `step`.
    memory : str or joblib.Memory, optional
        Folder in which `transform` keeps its results, including those of test folds;
        ``Pipeline(memory=...)`` keeps only those of `fit_transform`. Results are looked
        up by the images, the weights and the settings.
    random_state : int, RandomState or None, default=None
        Seed of the directions, which `fit` draws.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    model_ : TorchModel
        The wrapped network.
    n_classes_ : int
        Number of logits.
    step_ : float or tuple of float
        The step or steps used; NaN for "auto" if no feature needs it.
    directions_ : ndarray of shape (n_directions, *input_shape) or None
        Unit directions; None for "all".
    bounds_ : (float, float) or None
        Smallest and largest allowed value of an image.
    input_shape_ : tuple of int
        Shape of one input.
    precision_ : str
        The network's number format, such as "float32"; the coarsest of its weights. If
        the network is cast to another format later, its curvatures change, so images
        are refused, except between "float32" and "float64".
    n_features_in_ : int
        Number of values of one input.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the input columns, if a data frame with names was given.

    Notes
    -----
    The boundary point is found in three steps: a first-order estimate of the boundary,
    x - F(x) g / |g|^2; Newton's method from there; and the foot of the perpendicular
    from the estimate on the boundary linearised at the last point. It is somewhat
    farther from the image than the nearest point, and better at detecting strong
    attacks. "distance" is the distance from the image to this point.

    `fit` draws the directions once for all images, so the result for an image does not
    depend on other images. Their sampling error is described at
    :func:`curvdetect.geometry.mean_curvature`.

    :meth:`cost` gives the cost of the features. `fit` with step="auto" searches one
    boundary for at most 256 images.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> from curvdetect.study.networks import LeNet
    >>> model = TorchModel(LeNet().eval(), input_shape=(1, 28, 28))
    >>> X = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    >>> featurizer = CurvatureFeaturizer(model, random_state=0)
    >>> featurizer.fit_transform(X).shape
    (3, 10)
    """

    def __init__(
        self,
        model: TorchModel | nn.Module | None = None,
        *,
        at: Where = "boundary",
        method: CurvatureMethod = "forward",
        n_directions: int | Literal["all"] = 7,
        step: float | Sequence[float] | Literal["auto"] = "auto",
        n_boundaries: int | Literal["all"] | None = None,
        n_curved: int = 0,
        tol: float = 0.1,
        features: Sequence[str | Signal] = ("curvature",),
        layout: Literal["class", "nearest"] | None = None,
        laplacian_step: float | Sequence[float] | None = None,
        memory: str | Memory | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.at = at
        self.method = method
        self.n_directions = n_directions
        self.step = step
        self.n_boundaries = n_boundaries
        self.n_curved = n_curved
        self.tol = tol
        self.features = features
        self.layout = layout
        self.laplacian_step = laplacian_step
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    # scikit-learn ----------------------------------------------------------

    def fit(self, X: npt.ArrayLike | Tensor, y: Any = None) -> CurvatureFeaturizer:
        """Check the network, draw the directions and learn the step.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images, within the model's bounds.
        y : ignored
            For scikit-learn's pipelines.

        Returns
        -------
        CurvatureFeaturizer
            Itself.

        Raises
        ------
        TypeError
            If `model` is neither a TorchModel nor a module.
        ValueError
            If a parameter, the images or the network's outputs are not allowed.

        Warns
        -----
        UserWarning
            If the step is too small for second differences in the network's precision.
        """
        self._check_parameters()
        flat, shape = as_flat_array(X)
        values: npt.NDArray[Any] = validate_data(self, flat, **_VALIDATION)
        self.bounds_ = bounds_for(self.model, values)
        warn_of_no_bounds(self.model, self.bounds_)
        self.model_ = self._wrapped(shape or values.shape[1:], self.bounds_)
        self.input_shape_ = self.model_.input_shape or shape or values.shape[1:]
        images = self._images(values, shape)
        self.precision_ = _precision(self.model_.module, images)
        self.model_.check(images[:_N_CHECK_IMAGES])
        self.n_classes_ = self.model_.n_classes
        self._check_against_model()
        random_state = check_random_state(self.random_state)
        self.directions_ = self._draw_directions(random_state, values.dtype)
        self.step_ = self._learn_step(images, random_state)
        self._try_signals(images[:_N_TRIED_IMAGES])
        self._warn_of_rounding(next(self.model_.split(images, 1)).dtype)
        _LOG.info(
            "%d images, %d classes, step %s", len(images), self.n_classes_, self.step_
        )
        return self

    def transform(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[Any]:
        """Measure the boundaries around images.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images, within the model's bounds.

        Returns
        -------
        ndarray of shape (n_samples, n_columns)
            Blocks in the order of `features`, within a feature of its steps, within
            a step of the classes; see :meth:`get_feature_names_out`. float32 for
            float32 images.

        Raises
        ------
        ValueError
            If the images are not what they must be, or the network was cast to another
            precision since `fit`.

        Warns
        -----
        UserWarning
            If more than 5 % of the boundaries asked for were not found.
        """
        return self._arranged(*self._measured(X))

    def measure(self, X: npt.ArrayLike | Tensor) -> Measured:
        """Measure the boundaries around images, and say which they are.

        Parameters
        ----------
        X : array, Tensor or list of shape (n_samples, *input_shape) or (n_samples, d)
            Images, within the model's bounds.

        Returns
        -------
        Measured
            Tensors on the CPU: logits, the k classes of each image, whether there is a
            boundary to them, how far away, and what the features are there. What
            :meth:`transform` arranges.

        Raises
        ------
        ValueError
            As :meth:`transform` does.

        Warns
        -----
        UserWarning
            If more than 5 % of the boundaries asked for were not found.
        """
        return self._measured(X)[0]

    @property
    def setup_(self) -> Setup:
        """What is the same for all images and signals, settled by `fit`."""
        check_is_fitted(self)
        return Setup(
            n_classes=self.n_classes_,
            input_shape=tuple(self.input_shape_),
            n_boundaries=self._n_boundaries(),
            n_curved=self.n_curved,
            tol=float(self.tol),
            at=self.at,
            method=self.method,
            steps=tuple(float(h) for h in np.ravel(self.step_)),
            directions=self.directions_,
        )

    @property
    def signals_(self) -> tuple[Signal, ...]:
        """What is measured, with what `fit` settled."""
        setup = self.setup_
        return tuple(signal.resolved(setup) for signal in self._unresolved())

    def cost(self) -> float:
        """Return what the features cost, in forward-equivalents an image.

        Returns
        -------
        float
            A forward pass counts as 1, a backward pass as 2. 217 with nine boundaries,
            seven directions and one step: a forward pass and 9 backward ones to choose
            boundaries, 8 for the way to each, 14 for its curvature. The way to a
            boundary is what it takes on most trained networks; where logits hardly
            change around an image, it is several times as long. The rest is exact.
        """
        check_is_fitted(self)
        return joint_cost(self.signals_, self.n_classes_)

    def get_feature_names_out(
        self, input_features: Any = None
    ) -> npt.NDArray[np.object_]:
        """Name the columns: "curvature_class3", "distance_nearest0", ...

        Parameters
        ----------
        input_features : array of str, optional
            Checked against the names seen at `fit`, not used.

        Returns
        -------
        ndarray of str
            A name per column; with several steps it holds the step.
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        names = names_of_columns(
            self.signals_, self._layout(), self.n_classes_, self._n_boundaries()
        )
        return np.asarray(names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "step_")  # validation of X sets others before

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # Parameters ------------------------------------------------------------

    def _check_parameters(self) -> None:
        if not isinstance(self.model, TorchModel | nn.Module):
            raise TypeError(
                "model must be a TorchModel or a torch.nn.Module; got "
                f"{type(self.model).__name__}"
                + (". Only as a part of a guard it is left out" * (self.model is None))
            )
        check_choice("at", self.at, get_args(Where))
        check_choice("method", self.method, get_args(CurvatureMethod))
        check_choice("layout", self.layout, ("class", "nearest", None))
        if self.n_directions != "all":
            check_count("n_directions", self.n_directions, alternative=' or "all"')
        if self.n_boundaries is not None and self.n_boundaries != "all":
            check_count(
                "n_boundaries", self.n_boundaries, alternative=', "all" or None'
            )
        self._check_search()
        self._check_features()
        if not isinstance(self.step, str) or self.step != "auto":
            check_steps("step", self.step, '"auto", ')
        if self.laplacian_step is not None:
            check_steps("laplacian_step", self.laplacian_step, "None, ")

    def _check_features(self) -> None:
        features = self.features
        if isinstance(features, str | Signal) or not len(features):
            raise ValueError(
                "features must be a sequence of signals or of their names "
                f"{tuple(signal.name for signal in SIGNALS)}, such as "
                f'("curvature",); got {features!r}'
            )
        names = [signal.name for signal in named_signals(features)]
        if len(set(names)) < len(names):
            raise ValueError(
                "features must not repeat, or columns would have the same names; got "
                f"{features!r}"
            )

    def _check_search(self) -> None:
        check_positive("tol", self.tol)
        if self.tol >= 1:
            raise ValueError(f"tol must be less than 1; got {self.tol!r}")
        if self.n_curved == 0:
            return
        check_count("n_curved", self.n_curved, alternative=" or 0")
        k = self.n_boundaries
        if k is None or k == "all" or self.n_curved >= k:
            raise ValueError(
                "n_curved must be less than n_boundaries, which must be a number: at "
                "least one boundary is chosen by distance; got "
                f"n_curved={self.n_curved} and n_boundaries={k!r}"
            )
        if not any(isinstance(s, Curvature) for s in named_signals(self.features)):
            raise ValueError(
                'n_curved must be 0 where "curvature" is not among the features; got '
                f"{self.n_curved}"
            )

    def _check_against_model(self) -> None:
        if self._n_boundaries() >= self.n_classes_:
            raise ValueError(
                "n_boundaries must be less than the number of classes "
                f"({self.n_classes_}); got {self.n_boundaries}"
            )
        if self.n_features_in_ < 2:
            raise ValueError(
                "images of n_features = 1 value have no tangent directions; at least "
                "2 values are needed"
            )

    def _wrapped(
        self, shape: tuple[int, ...], bounds: tuple[float, float] | None
    ) -> TorchModel:
        return as_model(self.model, shape, bounds)

    def _n_curvatures(self) -> tuple[int, int]:
        """Return how many other signals are asked for, and steps of curvature."""
        self._check_parameters()
        signals = self._unresolved()
        curved = [signal for signal in signals if isinstance(signal, Curvature)]
        steps = (self.step if s.step is None else s.step for s in curved)
        return len(signals) - len(curved), sum(np.size(step) for step in steps)

    def _tried_on(self, images: npt.NDArray[Any]) -> TorchModel:
        """Return the network, checked, for whoever asks it before `fit` measures."""
        model = self._wrapped(images.shape[1:], bounds_for(self.model, images))
        model.check(images[:_N_CHECK_IMAGES])
        return model

    # Fitting ---------------------------------------------------------------

    def _draw_directions(
        self, random_state: np.random.RandomState, dtype: npt.DTypeLike
    ) -> npt.NDArray[Any] | None:
        if self.n_directions == "all":
            return None
        seed = random_state.randint(np.iinfo(np.int32).max)
        generator = torch.Generator().manual_seed(int(seed))
        drawn = random_directions(
            self.n_directions,
            self.input_shape_,
            generator=generator,
            dtype=torch.float64,
        )
        return drawn.numpy().astype(dtype)

    def _learn_step(
        self, images: Tensor, random_state: np.random.RandomState
    ) -> float | tuple[float, ...]:
        if not isinstance(self.step, str):
            steps = tuple(float(h) for h in np.ravel(self.step))
            return steps if np.ndim(self.step) else steps[0]
        if not any(
            isinstance(s, BoundarySignal) and s.takes_step for s in self._unresolved()
        ):
            return np.nan  # nothing is measured at it
        chosen = random_state.permutation(len(images))[:_N_SCALE_IMAGES]
        nearest = find_nearest_boundaries(self.model_, images[np.sort(chosen)])
        scale = float(nearest.distances.where(nearest.found, torch.nan).nanmedian())
        if not scale > 0:
            raise ValueError(
                'step="auto" found no boundary near the images given to fit (their '
                "gradients vanish, or the network gives one class only); give step as "
                "a number, an L2 length in input units"
            )
        return scale

    def _try_signals(self, images: Tensor) -> None:
        """Measure a few images: what fails is said before long work starts."""
        signals, setup = self.signals_, self.setup_
        with self.model_.evaluating(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again with the measurement
            for batch in self.model_.split(images):
                measure_signals(Around(self.model_, batch, setup), signals)

    def _warn_of_rounding(self, dtype: torch.dtype) -> None:
        """Warn where rounding is a few per cent of a curvature, or more."""
        steps = [
            step
            for signal in self.signals_
            if isinstance(signal, Curvature) and signal.method == "forward"
            for step in signal.steps
        ]
        if not steps:
            return
        low, high = self.model_.bounds or (0.0, 1.0)
        smallest = _SMALLEST_STEP * (high - low) * torch.finfo(dtype).eps ** 0.5
        if min(steps) < smallest:
            warn(
                f"step={min(steps):g} is too small for second differences in "
                f"{_name(dtype)}: rounding grows with 1 / step^2. Use at least "
                f"{_rounded_up(smallest)}, or a network and images in float64"
            )

    # Transforming ----------------------------------------------------------

    def _images(self, X: npt.NDArray[Any], shape: tuple[int, ...] | None) -> Tensor:
        """Give checked rows the shape of inputs, and check their values."""
        check_shape((len(X), *(shape or X.shape[1:])), self.input_shape_)
        return self.model_.to_tensor(X.reshape(-1, *self.input_shape_))

    def _same_network(self, images: Tensor, weights: str | None) -> None:
        """Refuse a network that is not the one that `fit` saw.

        One in another number format, and for a guard, which gives a digest, one with
        other weights.
        """
        self._same_precision(images)
        if weights is not None and self.model_.weights_digest() != weights:
            raise ValueError(
                "the network must have the weights that the guard was calibrated with; "
                "they are others now, for which its threshold means nothing. Fit again"
            )

    def _same_precision(self, images: Tensor) -> None:
        now, then = _precision(self.model_.module, images), self.precision_
        if now == then:
            return
        if {now, then} != {"float32", "float64"}:
            raise ValueError(
                f"the network must be as it was at fit, in {then}; now it is in {now}, "
                "where curvatures are other ones, and other images would be flagged. "
                f"Cast it back from a copy in {then}, or fit again"
            )
        self._warn_of_rounding(next(self.model_.split(images, 1)).dtype)

    def _measured(
        self, X: npt.ArrayLike | Tensor, weights: str | None = None
    ) -> tuple[Measured, npt.DTypeLike]:
        """Measure checked images, or look them up; return their dtype too."""
        check_is_fitted(self)
        flat, shape = as_flat_array(X)
        if shape is not None:  # scikit-learn would count their values, not more
            check_shape((len(flat), *shape), self.input_shape_)
        values: npt.NDArray[Any] = validate_data(self, flat, reset=False, **_VALIDATION)
        images = self._images(values, shape)
        self._same_network(images, weights)
        cached = check_memory(self.memory).cache(measure_all, ignore=["verbose"])
        measured = cached(images.numpy(), self._settings(), verbose=self.verbose)
        n_missing, n_pairs = int((~measured.found).sum()), measured.found.numel()
        if n_missing > _MISSING_SHARE * n_pairs:
            warn(
                f"no boundary was found for {n_missing} of {n_pairs} pairs of image "
                "and class (the margin never changes sign, or has no gradient). "
                "Fewer, nearer boundaries may help: n_boundaries."
            )
        return measured, values.dtype

    def _arranged(self, measured: Measured, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return what was measured as columns."""
        furthest = diagonal(self.model_, self.n_features_in_)
        return arrange(measured, self.signals_, self._layout(), furthest, dtype)

    def _settings(self) -> dict[str, Any]:
        """Return all that the measurements depend on, besides the images."""
        return {
            "model": self.model_,
            "setup": self.setup_,
            "signals": self.signals_,
            "by_distance": self._layout() == "nearest",
        }

    def _unresolved(self) -> tuple[Signal, ...]:
        """Return the signals as they were asked for."""
        return named_signals(
            Laplacian(self.laplacian_step) if feature == "laplacian" else feature
            for feature in self.features
        )

    def _n_boundaries(self) -> int:
        if self.n_boundaries is None and self.n_classes_ > _MANY_CLASSES:
            return _N_BOUNDARIES
        if self.n_boundaries is None or self.n_boundaries == "all":
            return self.n_classes_ - 1
        return int(self.n_boundaries)

    def _layout(self) -> Literal["class", "nearest"]:
        if self.layout is not None:
            return self.layout
        few = self._n_boundaries() < self.n_classes_ - 1
        return "nearest" if few and self.n_classes_ > _MANY_CLASSES else "class"


_VALIDATION: dict[str, Any] = {"dtype": [np.float64, np.float32]}


def _precision(module: nn.Module, images: Tensor) -> str:
    """Name the coarsest number format of a module's weights."""
    weights = (*module.parameters(), *module.buffers())
    formats = {w.dtype for w in weights if w.is_floating_point()}
    formats |= {dtype_of(module, images)}
    return _name(max(formats, key=lambda dtype: torch.finfo(dtype).eps))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _rounded_up(value: float) -> str:
    """Write a number with two digits, none of which makes it smaller."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.2g}"
