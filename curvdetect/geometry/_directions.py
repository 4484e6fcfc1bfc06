"""Unit directions: random ones, and orthonormal bases of tangent spaces."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "TangentSpace",
    "WholeSpace",
    "check_tangent_space",
    "project_to_tangent",
    "random_directions",
    "tangent_basis",
]


def random_directions(
    n_directions: int,
    input_shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw unit vectors, uniformly on the sphere.

    Parameters
    ----------
    n_directions : int
        How many.
    input_shape : sequence of int
        Shape of one input.
    generator : torch.Generator, optional
        Source of randomness, on the CPU, so that a seed gives the same directions
        on every device.
    dtype, device : optional
        Of the result.

    Returns
    -------
    Tensor of shape (n_directions, *input_shape)
        Unit vectors (their L2 norm over all input values is 1).

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import random_directions
    >>> v = random_directions(4, (1, 28, 28), generator=torch.Generator())
    >>> v.flatten(1).norm(dim=1)
    tensor([1.0000, 1.0000, 1.0000, 1.0000])
    """
    shape = (n_directions, *input_shape)
    # float64, so that the same seed gives the same directions in every dtype
    v = torch.randn(shape, generator=generator, dtype=torch.float64)
    v /= v.flatten(1).norm(dim=1).reshape(-1, *[1] * len(input_shape))
    return v.to(dtype=dtype or torch.get_default_dtype(), device=device)


def check_tangent_space(z: Tensor) -> None:
    """Refuse points of fewer than two values."""
    if math.prod(z.shape[1:]) < 2:
        raise ValueError(
            "z must hold points of at least 2 values for a tangent space to exist; "
            f"got input shape {tuple(z.shape[1:])}"
        )


def project_to_tangent(v: Tensor, normal: Tensor) -> Tensor:
    """Remove the normal part of each row of `v` and normalise what is left.

    Both have shape (n, d); the rows of `normal` are unit vectors. Projecting an
    isotropic direction gives a uniform one on the unit sphere of the tangent space.
    """
    tangent = v - (v * normal).sum(1, keepdim=True) * normal
    return tangent / tangent.norm(dim=1, keepdim=True)


class TangentSpace:
    """What is orthogonal to many normals, with a basis made one vector at a time.

    Householder's reflection Q = I - 2 w w^T that sends the normal to a coordinate axis
    p has orthonormal columns; all but the p-th are orthogonal to the normal. A column
    is made when asked for, so that a d x d matrix is never held. With p the largest
    component of the normal, the columns are close to the pixel axes.

    Parameters
    ----------
    normal : Tensor of shape (n, d)
        Unit vectors.
    """

    def __init__(self, normal: Tensor) -> None:
        self.normal = normal
        self.pivot = normal.abs().argmax(dim=1)
        rows = torch.arange(len(normal), device=normal.device)
        w = normal.clone()
        # The sign avoids cancellation; the pivot is never zero for a unit vector.
        w[rows, self.pivot] += torch.sign(normal[rows, self.pivot])
        self.w = w / w.norm(dim=1, keepdim=True)
        self.dimension = normal.shape[1] - 1

    def columns(self, rows: Tensor, k: Tensor) -> Tensor:
        """Return tangent vector k (0 .. d-2) of the normal in each of `rows`."""
        k = k + (k >= self.pivot[rows]).to(k.dtype)  # leave the pivot's column out
        w = self.w[rows]
        v = -2 * w.gather(1, k[:, None]) * w
        v.scatter_add_(1, k[:, None], torch.ones_like(v[:, :1]))
        return v

    def projected(self, rows: Tensor, v: Tensor) -> Tensor:
        """Return the unit tangents that are left of vectors, one a row."""
        return project_to_tangent(v, self.normal[rows])

    def coordinates(self, rows: Tensor, w: Tensor) -> Tensor:
        """Return the inner products of vectors, one a row, with the tangents."""
        reflected = self._reflect(self.w[rows], w)
        keep = torch.ones_like(reflected, dtype=torch.bool)
        keep.scatter_(1, self.pivot[rows, None], False)
        return reflected[keep].reshape(len(w), self.dimension)

    def embed(self, rows: Tensor, y: Tensor) -> Tensor:
        """Return the vectors that have coordinates y, one a row."""
        k = torch.arange(y.shape[1], device=y.device).expand(y.shape)
        k = k + (k >= self.pivot[rows, None]).to(k.dtype)
        full = y.new_zeros(len(y), y.shape[1] + 1).scatter_(1, k, y)
        return self._reflect(self.w[rows], full)

    @staticmethod
    def _reflect(w: Tensor, v: Tensor) -> Tensor:
        return v - 2 * (w * v).sum(1, keepdim=True) * w


class WholeSpace:
    """The whole space, with the interface of :class:`TangentSpace`."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.dimension = like.shape[1]

    def columns(self, rows: Tensor, k: Tensor) -> Tensor:
        """Return axis k."""
        shape = len(k), self.dimension
        return self.like.new_zeros(shape).scatter_(1, k[:, None], 1)

    def projected(self, rows: Tensor, v: Tensor) -> Tensor:
        """Return v itself."""
        return v

    def coordinates(self, rows: Tensor, w: Tensor) -> Tensor:
        """Return the coordinates of w: itself."""
        return w

    def embed(self, rows: Tensor, y: Tensor) -> Tensor:
        """Return the vectors that have coordinates y: themselves."""
        return y


def tangent_basis(normal: Tensor) -> Tensor:
    """Return an orthonormal basis of the space orthogonal to a normal.

    Parameters
    ----------
    normal : Tensor of shape (n, *input_shape)
        Unit vectors.

    Returns
    -------
    Tensor of shape (n, d - 1, *input_shape)
        Unit tangents, orthogonal to each other; close to the pixel axes where the
        normal has no dominant component.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import tangent_basis
    >>> normal = torch.tensor([[0.0, 0.6, 0.8]])
    >>> basis = tangent_basis(normal)
    >>> basis.shape, bool((basis @ normal[0]).abs().max() < 1e-6)
    (torch.Size([1, 2, 3]), True)
    """
    n, d = len(normal), normal[0].numel()
    pairs = torch.arange(n * (d - 1), device=normal.device)
    basis = TangentSpace(normal.flatten(1)).columns(pairs // (d - 1), pairs % (d - 1))
    return basis.reshape(n, d - 1, *normal.shape[1:])
