"""The decision boundaries of a network around images: classes, points, margins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral

import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect.geometry import (
    BoundaryPoints,
    PairwiseMargin,
    find_boundary,
    nearest_classes,
)
from curvdetect.network.checks import check_defined, check_finite
from curvdetect.network.model import TorchModel

__all__ = ["Boundaries", "find_nearest_boundaries", "undefined"]

#: In diagonals of the input range: nothing of use is found beyond.
_FAR = 10


@dataclass(frozen=True)
class Boundaries:
    """Boundary points around n images, k of each, in n * k rows.

    The rows of one image follow each other, the boundary nearest to first order first:
    ``distances.reshape(n, k)`` has a row per image.

    Attributes
    ----------
    margin : PairwiseMargin
        F_ij of every row, for the functions of :mod:`curvdetect.geometry`. Its
        attributes ``predicted`` and ``other`` are the classes i and j.
    images : Tensor of shape (n * k, *input_shape)
        x, the image of every row.
    boundary : BoundaryPoints
        What the search found for every row; the properties are parts of it.
    """

    margin: PairwiseMargin
    images: Tensor
    boundary: BoundaryPoints

    @property
    def points(self) -> Tensor:
        """z, (n * k, *input_shape), on the boundary of the predicted class."""
        return self.boundary.points

    @property
    def distances(self) -> Tensor:
        """L2 norm of z - x, (n * k,), in input units."""
        return self.boundary.distances

    @property
    def found(self) -> Tensor:
        """Whether a boundary was found, (n * k,) bool."""
        return self.boundary.found


def find_nearest_boundaries(
    model: TorchModel,
    X: npt.ArrayLike | Tensor,
    *,
    n_boundaries: int | None = 1,
    n_projections: int = 2,
) -> Boundaries:
    """Find points on the boundaries around images, near to the images.

    Parameters
    ----------
    model : TorchModel
        The network.
    X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
        Images.
    n_boundaries : int or None, default=1
        To how many other classes: those whose boundary is nearest to first order. None
        for all of them.
    n_projections : int, default=2
        As in :func:`curvdetect.geometry.find_boundary`.

    Returns
    -------
    Boundaries
        Points and margins, on the model's device and in its dtype. Cost per boundary:
        that of :func:`curvdetect.geometry.find_boundary`, and a forward and a backward
        pass for every class that was a candidate.

    Raises
    ------
    ValueError
        If the images or `n_boundaries` are not what they must be, or the network cannot
        be asked outside its bounds.

    Examples
    --------
    >>> from curvdetect import TorchModel
    >>> from curvdetect.network import find_nearest_boundaries
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.geometry import mean_curvature
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    >>> nearest = find_nearest_boundaries(model, X[:5], n_boundaries=3)
    >>> with model.evaluating():
    ...     kappa = mean_curvature(nearest.margin, nearest.points)
    >>> kappa.reshape(5, 3).shape
    torch.Size([5, 3])
    """
    x = model.to_tensor(X)
    if not len(x):
        raise ValueError("X must hold at least one image; got none")
    model.check(x[:4])
    others = model.n_classes - 1
    k = others if n_boundaries is None else n_boundaries
    if not (isinstance(k, Integral) and 1 <= int(k) <= others):
        raise ValueError(
            f"n_boundaries must be an integer from 1 to {others}, the number of other "
            f"classes, or None; got {n_boundaries!r}"
        )
    search = partial(_nearest, model, k=int(k), n_projections=n_projections)
    with model.evaluating():
        margin, images, boundary = _joined(model, [search(b) for b in model.split(x)])
    check_defined(undefined(boundary, model, x))
    return Boundaries(margin, images, boundary)


_Found = tuple[PairwiseMargin, Tensor, BoundaryPoints]


def _nearest(model: TorchModel, x: Tensor, k: int, n_projections: int) -> _Found:
    batch_size = model.rows_per_batch(x[:1])
    near = nearest_classes(model.logits, x, k, batch_size=batch_size)
    check_finite(near.value)
    margin, images = near.pairs.margin(model.logits), near.pairs.rows(x)
    boundary = find_boundary(
        margin,
        images,
        n_projections=n_projections,
        evaluated=(near.value.flatten(), near.gradient.flatten(0, 1)),
        batch_size=batch_size,
    )
    return margin, images, boundary


def undefined(found: BoundaryPoints, model: TorchModel, x: Tensor) -> Tensor:
    """Say at which points the network gave NaN, and not for being far out of reach.

    Where gradients are tiny a search leads so far that numbers overflow: no boundary.
    """
    reach = _FAR * diagonal(model, x[0].numel())
    slope = found.gradient.flatten(1).norm(dim=1)
    return (found.value + slope).isnan() & (found.distances < reach)


def diagonal(model: TorchModel, n_values: int) -> float:
    """Return the longest distance between two inputs of so many values."""
    low, high = model.bounds or (0.0, 1.0)
    return float((high - low) * n_values**0.5)


def _joined(model: TorchModel, found: list[_Found]) -> _Found:
    """Put the rows of all batches together."""
    margins, images, boundaries = zip(*found, strict=True)
    predicted = torch.cat([margin.predicted for margin in margins])
    other = torch.cat([margin.other for margin in margins])
    parts = (torch.cat(part) for part in zip(*boundaries, strict=True))
    return model.margin(predicted, other), torch.cat(images), BoundaryPoints(*parts)
