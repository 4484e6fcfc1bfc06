"""The decision boundaries of a network around images: classes, points, margins."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect.geometry import PairwiseMargin, find_boundary
from curvdetect.geometry._nearest_classes import nearest_classes
from curvdetect.network.checks import check_finite
from curvdetect.network.model import TorchModel

__all__ = ["Boundaries", "nearest_boundaries"]


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
    points : Tensor of shape (n * k, *input_shape)
        z, on the boundary between the predicted class and the other one.
    distances : Tensor of shape (n * k,)
        L2 norm of z - x, in input units.
    found : Tensor of shape (n * k,), bool
        Whether a boundary was found; where it was not, z is where the search ended.
    """

    margin: PairwiseMargin
    images: Tensor
    points: Tensor
    distances: Tensor
    found: Tensor


def nearest_boundaries(
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
        If the images or `n_boundaries` are not what they must be.

    Examples
    --------
    >>> from curvdetect import TorchModel
    >>> from curvdetect.network import nearest_boundaries
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.geometry import mean_curvature
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    >>> nearest = nearest_boundaries(model, X[:5], n_boundaries=3)
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
    with model.evaluating():
        parts = [
            _nearest(model, rows, int(k), n_projections) for rows in model.split(x)
        ]
    predicted, other, *rest = (torch.cat(part) for part in zip(*parts, strict=True))
    return Boundaries(model.margin(predicted, other), *rest)


def _nearest(
    model: TorchModel, x: Tensor, k: int, n_projections: int
) -> tuple[Tensor, ...]:
    batch_size = model.rows_per_batch(x[:1])
    start = nearest_classes(model.logits, x, k, batch_size=batch_size)
    check_finite(start.value)
    predicted, other = start.predicted.repeat_interleave(k), start.classes.flatten()
    images = x.repeat_interleave(k, dim=0)
    boundary = find_boundary(
        model.margin(predicted, other),
        images,
        n_projections=n_projections,
        start=(start.value, start.gradient),
        batch_size=batch_size,
    )
    return predicted, other, images, *boundary
