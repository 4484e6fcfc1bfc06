"""`CurvatureFeaturizer`: from images to the curvature of the boundaries around them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from numbers import Real
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
from tqdm.auto import tqdm

from curvdetect._base.checks import check_choice, check_count, check_positive
from curvdetect.estimators._shared_network import SharedNetworkMixin
from curvdetect.geometry import CurvatureMethod, random_directions
from curvdetect.network import TorchModel, nearest_boundaries
from curvdetect.network.checks import check_shape
from curvdetect.network.model import as_array, as_flat_array
from curvdetect.signals._measure import Measurements, Probe, measure

__all__ = ["CurvatureFeaturizer"]

_LOG = logging.getLogger(__name__)

_FEATURES = ("curvature", "distance", "laplacian")
#: Images from which step="auto" learns the typical distance to the boundary.
_N_SCALE_IMAGES = 256
#: Images with which fit tries the module.
_N_CHECK_IMAGES = 4
#: Times the root of the precision, relative to the range of inputs: in float32 0.0035.
#: Rounding is 5 and 6 % of the median curvature of two LeNets there and 0.6 % of that
#: of a ResNet-20 (benchmarks/precision.py); it grows with 1 / step^2.
_SMALLEST_STEP = 10
#: Missing boundaries up to this share are a matter of course: NaN says enough.
_MISSING_SHARE = 0.05


class CurvatureFeaturizer(SharedNetworkMixin, TransformerMixin, BaseEstimator):
    r"""Measure the curvature of the decision boundaries around each image.

    For every other class j a point z is sought on the boundary between j and the
    predicted class i, and the boundary's average curvature there is a feature:
    positive where the region of i is locally convex. On natural images it is
    negative on average; on perturbed ones the boundary back to the original class
    bulges out, and its curvature is large. So the largest feature tells perturbed
    images from natural ones, and its class is the original label.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The trained network. A bare module is wrapped in a :class:`TorchModel` with
        its defaults and the shape of the inputs it is fitted with.
    at : {"boundary", "input"}, default="boundary"
        Where the curvature is taken: at a boundary point, or - an approximation -
        on the level set of the margin through the image itself.
    method : {"forward", "gradient", "autodiff"}, default="forward"
        How second derivatives are taken; see
        :func:`curvdetect.geometry.mean_curvature`.
    n_directions : int or "all", default=7
        Random directions averaged over. "all" takes an orthonormal basis, d - 1
        directions close to the pixel axes: no sampling error, at d / 7 times the
        cost. For networks with kinks the two differ at a finite step, because a
        step along one pixel meets other kinks than a step spread over all of them.
    step : "auto", float or sequence of float, default="auto"
        Finite step h, an L2 length in input units. "auto" takes the median
        distance of the images given to `fit` to their nearest boundary. Several
        steps give a block of columns each.
    n_boundaries : int, optional
        Only the boundaries to the k nearest classes, chosen by first-order
        distance; all by default. With many classes, among those with the largest
        logits: twice k, at least ten, or seven with `n_curved`.
    n_curved : int, default=0
        How many of these k are chosen by their curvature at the image instead. Strong
        attacks lead far from the boundary they crossed, weak ones stay near it: with
        ``n_boundaries=3, n_curved=2, n_directions=3`` the features cost less than a
        third of the default's and tell both apart nearly as well.
    tol : float, default=0.1
        How near to a boundary its search gets before the last step: the linearised
        boundary is within `tol` times the distance from the image, less than 1. What
        the last step leaves is of second order, where it crosses no kink. A margin that
        comes so close to zero without crossing it counts as a boundary. 1e-3 costs
        some 50 forward passes more for ten classes.
    features : sequence of str, default=("curvature",)
        - "curvature": average curvature of each boundary, in 1 / input units;
        - "distance": L2 distance to the point found on each boundary, in input units;
        - "laplacian": F(x) - mean of F(x + h u) over random unit steps u, for each
          margin F at the image itself, in logits.
    layout : {"class", "nearest"}, default="class"
        - "class": a column per class; NaN at the predicted class and where no
          boundary was asked for or found. For the relabeler.
        - "nearest": columns ordered by the distance of the boundary, without NaN,
          for any classifier. Where a boundary was not found, its columns repeat
          those of the farthest one found; where none was, curvature and laplacian
          are 0 and distance is the diagonal of the input range.
    laplacian_step : float or sequence of float, optional
        Steps of the "laplacian" feature; those of `step` by default.
    memory : str or joblib.Memory, optional
        Folder in which `transform` keeps its results, as in ``Pipeline(memory=...)``:
        a pipeline's own memory holds those of `fit_transform` alone, this one also
        those of test folds. They are looked up by the images, the weights and the
        settings.
    random_state : int, RandomState or None, default=None
        Draws the directions, at `fit`.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    model_ : TorchModel
        The wrapped network.
    n_classes_ : int
        Number of logits.
    step_ : float or tuple of float
        The step or steps used; NaN for "auto" where no feature asks for it.
    directions_ : ndarray of shape (n_directions, *input_shape) or None
        Unit directions; None for "all".
    input_shape_ : tuple of int
        Shape of one input.
    n_features_in_ : int
        Number of values of one input.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the input columns, if a data frame with names was given.

    Notes
    -----
    The boundary point is sought near the first-order estimate of it, x - F(x) g /
    |g|^2: Newton's method leads onto the boundary, a last step towards the foot of the
    perpendicular from the estimate. It is somewhat farther from the image than the
    nearest point, and better at telling strong attacks apart. "distance" is the way
    from the image to it.

    Directions are drawn once, at `fit`, and shared by all images: the result for an
    image depends on no other image. Their sampling error is described at
    :func:`curvdetect.geometry.mean_curvature`.

    Cost per image with L classes, counted in forward passes (a backward pass is
    two): about (L - 1) (2 n_directions + 10), less than 220 for ten classes; each
    further step adds 2 n_directions (L - 1). With n_boundaries=k it is about
    k (2 n_directions + 8) + 2 max(2 k, 10), whatever L; with `n_curved`,
    (k + 1) (2 n_directions) + 8 k + 2 max(2 k, 7). `fit` with step="auto" searches
    one boundary for at most 256 images.

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
        model: TorchModel | nn.Module,
        *,
        at: Literal["boundary", "input"] = "boundary",
        method: CurvatureMethod = "forward",
        n_directions: int | Literal["all"] = 7,
        step: float | Sequence[float] | Literal["auto"] = "auto",
        n_boundaries: int | None = None,
        n_curved: int = 0,
        tol: float = 0.1,
        features: Sequence[str] = ("curvature",),
        layout: Literal["class", "nearest"] = "class",
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
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
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
        self.model_ = self._wrapped(shape or values.shape[1:])
        self.input_shape_ = self.model_.input_shape or shape or values.shape[1:]
        images = self._images(values, shape)
        self.model_.check(images[:_N_CHECK_IMAGES])
        self.n_classes_ = self.model_.n_classes
        self._check_against_model()
        random_state = check_random_state(self.random_state)
        self.directions_ = self._draw_directions(random_state, values.dtype)
        self.step_ = self._learn_step(images, random_state)
        self._warn_of_rounding(next(self.model_.split(images, 1)).dtype)
        _LOG.info(
            "%d images, %d classes, step %s", len(images), self.n_classes_, self.step_
        )
        return self

    def transform(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[Any]:
        """Measure the boundaries around images.

        Parameters
        ----------
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
            Images, within the model's bounds.

        Returns
        -------
        ndarray of shape (n_samples, n_columns)
            Blocks in the order of `features`, within a feature of its steps, within
            a step of the classes; see :meth:`get_feature_names_out`. float32 for
            float32 images.

        Warns
        -----
        UserWarning
            If more than 5 % of the boundaries asked for were not found.
        """
        check_is_fitted(self)
        flat, shape = as_flat_array(X)
        values: npt.NDArray[Any] = validate_data(self, flat, reset=False, **_VALIDATION)
        images = self._images(values, shape)
        cached = check_memory(self.memory).cache(_measure_all, ignore=["featurizer"])
        out, n_missing = cached(self, values.dtype, images.numpy(), self._settings())
        n_pairs = len(values) * self._n_boundaries()
        if n_missing > _MISSING_SHARE * n_pairs:
            warnings.warn(
                f"no boundary was found for {n_missing} of {n_pairs} pairs of image "
                "and class (the margin never changes sign, or has no gradient). "
                "Fewer, nearer boundaries may help: n_boundaries.",
                UserWarning,
                stacklevel=3,  # scikit-learn wraps transform
            )
        return out

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
        columns = range(self._n_columns_per_block())
        return np.asarray(
            [
                f"{block}_{self.layout}{column}"
                for block in self._block_names()
                for column in columns
            ],
            dtype=object,
        )

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
            )
        check_choice("at", self.at, ("boundary", "input"))
        check_choice("method", self.method, get_args(CurvatureMethod))
        check_choice("layout", self.layout, ("class", "nearest"))
        if self.n_directions != "all":
            check_count("n_directions", self.n_directions, alternative=' or "all"')
        if self.n_boundaries is not None:
            check_count("n_boundaries", self.n_boundaries, alternative=" or None")
        self._check_search()
        if isinstance(self.features, str) or not len(self.features):
            raise ValueError(
                f"features must be a sequence out of {_FEATURES}, such as "
                f'("curvature",); got {self.features!r}'
            )
        for feature in self.features:
            check_choice("features", feature, _FEATURES)
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features must not repeat; got {self.features!r}")
        if not isinstance(self.step, str) or self.step != "auto":
            _check_steps("step", self.step, '"auto", ')
        if self.laplacian_step is not None:
            _check_steps("laplacian_step", self.laplacian_step, "None, ")

    def _check_search(self) -> None:
        check_positive("tol", self.tol)
        if self.tol >= 1:
            raise ValueError(f"tol must be less than 1; got {self.tol!r}")
        if self.n_curved == 0:
            return
        check_count("n_curved", self.n_curved, alternative=" or 0")
        if self.n_boundaries is None or self.n_curved >= self.n_boundaries:
            raise ValueError(
                "n_curved must be less than n_boundaries, which must be given: at "
                "least one boundary is chosen by distance; got "
                f"n_curved={self.n_curved} and n_boundaries={self.n_boundaries}"
            )
        if "curvature" not in self.features:
            raise ValueError(
                'n_curved must be 0 where "curvature" is not among the features; got '
                f"{self.n_curved}"
            )

    def _check_against_model(self) -> None:
        if self.n_boundaries is not None and self.n_boundaries >= self.n_classes_:
            raise ValueError(
                "n_boundaries must be less than the number of classes "
                f"({self.n_classes_}); got {self.n_boundaries}"
            )
        if self.n_features_in_ < 2:
            raise ValueError(
                "images of n_features = 1 value have no tangent directions; at least "
                "2 values are needed"
            )

    def _wrapped(self, shape: tuple[int, ...]) -> TorchModel:
        if isinstance(self.model, TorchModel):
            return self.model
        return TorchModel(self.model, input_shape=shape)

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
        of_laplacian = "laplacian" in self.features and self.laplacian_step is None
        if "curvature" not in self.features and not of_laplacian:
            return np.nan  # nothing is measured at it
        chosen = random_state.permutation(len(images))[:_N_SCALE_IMAGES]
        nearest = nearest_boundaries(self.model_, images[np.sort(chosen)])
        scale = float(nearest.distances.where(nearest.found, torch.nan).nanmedian())
        if not scale > 0:
            raise ValueError(
                'step="auto" found no boundary near the images given to fit (their '
                "gradients vanish, or the network gives one class only); give step as "
                "a number, an L2 length in input units"
            )
        return scale

    def _warn_of_rounding(self, dtype: torch.dtype) -> None:
        """Warn where rounding is a few per cent of a curvature, or more."""
        steps = self._steps_of("curvature")
        if self.method != "forward" or not steps:
            return
        low, high = self.model_.bounds or (0.0, 1.0)
        smallest = _SMALLEST_STEP * (high - low) * torch.finfo(dtype).eps ** 0.5
        if min(steps) < smallest:
            warnings.warn(
                f"step={min(steps):g} is too small for second differences in "
                f"{str(dtype).removeprefix('torch.')}: rounding grows with 1 / step^2. "
                f"Use at least {smallest:.1g}, or a network and images in float64",
                UserWarning,
                stacklevel=3,
            )

    # Transforming ----------------------------------------------------------

    def _images(self, X: npt.NDArray[Any], shape: tuple[int, ...] | None) -> Tensor:
        """Give checked rows the shape of inputs, and check their values."""
        check_shape((len(X), *(shape or X.shape[1:])), self.input_shape_)
        return self.model_.to_tensor(X.reshape(-1, *self.input_shape_))

    def _settings(self) -> dict[str, Any]:
        """Return all that the features depend on, besides the images."""
        return {
            "model": self.model_,
            "directions": self.directions_,
            "step": self.step_,
            **{name: getattr(self, name) for name in _MEASURED},
            "features": tuple(self.features),
        }

    def _measure_batches(self, images: Tensor) -> Iterator[tuple[Any, int]]:
        """Yield the columns of each batch, and how many boundaries it misses."""
        with self.model_.evaluating():
            for batch in self._progress(images):
                measured = measure(self.model_, batch, self._probe(batch))
                columns = self._arrange(measured).reshape(len(batch), -1)
                yield columns, int((~measured.found).sum())

    def _n_boundaries(self) -> int:
        return self.n_boundaries or self.n_classes_ - 1

    def _n_columns_per_block(self) -> int:
        return self.n_classes_ if self.layout == "class" else self._n_boundaries()

    def _steps_of(self, feature: str) -> tuple[float, ...]:
        """Return the steps at which a feature is measured, if it is wanted."""
        if feature not in self.features:
            return ()
        step: Any = self.step_
        if feature == "laplacian" and self.laplacian_step is not None:
            step = self.laplacian_step
        return tuple(float(h) for h in np.ravel(step))

    def _block_names(self) -> list[str]:
        names = []
        for feature in self.features:
            steps = self._steps_of(feature)
            if feature == "distance" or len(steps) == 1:
                names.append(feature)
            else:
                names.extend(f"{feature}_h{h:g}" for h in steps)
        return names

    def _probe(self, batch: Tensor) -> Probe:
        curved = "curvature" in self.features
        at_boundary = self.at == "boundary"
        directions = None
        if self.directions_ is not None:
            directions = torch.tensor(self.directions_).to(batch)
        return Probe(
            at_boundary=at_boundary,
            method=self.method,
            directions=directions,
            curvature_steps=self._steps_of("curvature"),
            laplacian_steps=self._steps_of("laplacian"),
            search="distance" in self.features
            or (at_boundary and (curved or self.layout == "nearest")),
            tol=float(self.tol),
            n_boundaries=self._n_boundaries(),
            n_curved=self.n_curved,
        )

    def _progress(self, images: Tensor) -> Iterator[Tensor]:
        """Yield batches of images whose boundaries fill the network's batches."""
        if not len(images):
            return
        rows = self.model_.rows_per_batch(images[:1])
        # Twice, since the search narrows down to the rows that are still open.
        size = max(1, 2 * rows // max(self._n_boundaries(), 1))
        with tqdm(
            total=len(images), unit="image", desc="measure", disable=not self.verbose
        ) as bar:
            for batch in self.model_.split(images, size):
                yield batch
                bar.update(len(batch))

    def _arrange(self, measured: Measurements) -> npt.NDArray[Any]:
        """Return the columns of a batch, shape (n, n_blocks, n_columns)."""
        blocks: list[Tensor] = []
        for feature in self.features:
            block = getattr(measured, feature)
            blocks.extend(block[None] if feature == "distance" else block)
        values = torch.stack(blocks, dim=1)  # (n, n_blocks, k)
        if self.layout == "class":
            return as_array(self._by_class(measured, values))
        return as_array(self._by_distance(measured, values))

    def _by_class(self, measured: Measurements, values: Tensor) -> Tensor:
        values = values.where(measured.found[:, None], torch.nan)
        out = values.new_full((*values.shape[:2], self.n_classes_), torch.nan)
        return out.scatter_(2, measured.classes[:, None].expand_as(values), values)

    def _by_distance(self, measured: Measurements, values: Tensor) -> Tensor:
        found = measured.found
        distance = measured.distance.where(found, torch.inf)
        order = distance.argsort(dim=1, stable=True)
        # Positions past the last boundary found repeat it.
        n_found = found.sum(dim=1, keepdim=True)
        position = torch.arange(order.shape[1], device=order.device)
        order = order.gather(1, torch.minimum(position, (n_found - 1).clamp(min=0)))
        values = values.gather(2, order[:, None].expand_as(values))
        low, high = self.model_.bounds or (0.0, 1.0)
        diagonal = (high - low) * float(np.sqrt(self.n_features_in_))
        names = self._block_names()
        blank = values.new_tensor([diagonal * (n == "distance") for n in names])
        none_found = (n_found == 0)[:, None].expand_as(values)
        return torch.where(none_found, blank[:, None], values)


#: Parameters that `transform` depends on, besides what `fit` learned.
_MEASURED = (
    "at",
    "method",
    "n_boundaries",
    "n_curved",
    "tol",
    "layout",
    "laplacian_step",
)


def _measure_all(
    featurizer: CurvatureFeaturizer,
    dtype: npt.DTypeLike,
    images: npt.NDArray[Any],
    settings: dict[str, Any],
) -> tuple[npt.NDArray[Any], int]:
    """Return the features of all images, and how many boundaries were not found.

    A function of `images`, which were checked, and `settings`: that is what a cache
    looks it up by.
    """
    n_columns = len(featurizer.get_feature_names_out())
    out = np.empty((len(images), n_columns), dtype=dtype)
    done = n_missing = 0
    for columns, missing in featurizer._measure_batches(torch.from_numpy(images)):
        out[done : done + len(columns)] = columns
        done += len(columns)
        n_missing += missing
    return out, n_missing


_VALIDATION: dict[str, Any] = {"dtype": [np.float64, np.float32]}


def _check_steps(name: str, value: Any, alternative: str) -> None:
    steps = [value] if np.ndim(value) == 0 else list(value)
    numbers = all(isinstance(h, Real) and 0 < float(h) < np.inf for h in steps)
    if not steps or not numbers or len(set(steps)) < len(steps):
        raise ValueError(
            f"{name} must be {alternative}a positive finite number, or a sequence of "
            f"different ones; got {value!r}"
        )
