"""The subspace of curved directions that the boundaries around many images share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect._base.checks import check_count, check_positive, check_vectors
from curvdetect._base.rows import batches
from curvdetect.geometry._derivatives import margin_value, margin_value_and_gradient
from curvdetect.geometry._differences import CurvatureMethod
from curvdetect.geometry._directions import project_to_tangent, random_directions
from curvdetect.geometry._margins import Margin
from curvdetect.geometry._normal_curvature import normal_curvature

__all__ = [
    "Subspace",
    "curvature_in_subspace",
    "label_changes",
    "random_subspace",
    "shared_subspace",
]

#: A unit vector whose cosine with the normal is nearer to 1 than this has no tangent.
_NORMAL = 1e-6


class Subspace(NamedTuple):
    """A subspace of the inputs; see :func:`shared_subspace`.

    Attributes
    ----------
    basis : Tensor of shape (m, *input_shape)
        Orthonormal vectors, the most shared first.
    energy : Tensor of shape (r,)
        How much of the directions the first 1, 2, ..., r vectors hold: shares of the
        squared singular values, the last one 1 up to rounding.
    """

    basis: Tensor
    energy: Tensor


def shared_subspace(directions: Tensor, *, dimension: int | float = 0.9) -> Subspace:
    """Find the subspace S that principal directions of many images have in common.

    The leading right singular vectors of the matrix whose rows are the directions.

    Parameters
    ----------
    directions : Tensor of shape (n, *input_shape)
        Unit vectors: principal directions of many points, all in one axis
        (``spectrum.directions.flatten(0, 1)``).
    dimension : int or float, default=0.9
        How many vectors; or, below 1, as many as hold this share of the directions.

    Returns
    -------
    Subspace
        A basis, and the share that each number of vectors holds.

    Raises
    ------
    ValueError
        If `dimension` is not allowed.

    References
    ----------
    A. Fawzi, S.-M. Moosavi-Dezfooli, P. Frossard, S. Soatto, "Empirical study of the
    topology and geometry of deep networks", CVPR 2018, section 5.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import shared_subspace
    >>> directions = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.6, 0.8, 0.0]])
    >>> shared = shared_subspace(directions, dimension=0.99)
    >>> shared.basis.shape
    torch.Size([2, 3])
    """
    flat = directions.flatten(1)
    if not len(flat) or not bool(flat.isfinite().all() & flat.any()):
        raise ValueError(
            "directions must be finite and not all zero, at least one vector; got "
            f"{len(flat)}, {int((~flat.isfinite().all(1)).sum())} of them not finite"
        )
    _, singular, rows = torch.linalg.svd(flat, full_matrices=False)
    energy = singular.square().cumsum(0) / singular.square().sum()
    if isinstance(dimension, float) and 0 < dimension < 1:
        m = min(int((energy < dimension).sum()) + 1, len(rows))
    else:
        check_count(
            "dimension", dimension, len(rows), " or a share strictly between 0 and 1"
        )
        m = int(dimension)
    return Subspace(rows[:m].reshape(m, *directions.shape[1:]), energy)


def random_subspace(
    dimension: int,
    input_shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw orthonormal vectors, the basis of a uniformly random subspace.

    Parameters
    ----------
    dimension : int
        How many, at most the number of input values.
    input_shape : sequence of int
        Shape of one input.
    generator : torch.Generator, optional
        Source of randomness, on the CPU.
    dtype, device : optional
        Of the result.

    Returns
    -------
    Tensor of shape (dimension, *input_shape)
        Orthonormal vectors.

    Raises
    ------
    ValueError
        If `dimension` is not allowed.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.geometry import random_subspace
    >>> basis = random_subspace(2, (3,), generator=torch.Generator())
    >>> torch.allclose(basis @ basis.T, torch.eye(2), atol=1e-6)
    True
    """
    d = math.prod(input_shape)
    check_count("dimension", dimension, d)
    draws = random_directions(dimension, (d,), generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(draws.T)
    return basis.T.reshape(dimension, *input_shape).to(
        dtype=dtype or torch.get_default_dtype(), device=device
    )


def curvature_in_subspace(
    margin: Margin,
    z: Tensor,
    basis: Tensor,
    *,
    method: CurvatureMethod = "forward",
    step: float = 0.1,
    evaluated: tuple[Tensor, Tensor] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Measure how strongly a level set curves along the vectors of a subspace.

    The mean of |kappa(v)| over the vectors v of the basis, each projected on the
    tangent space; one along the normal is left out. Compare it with that of a
    :func:`random_subspace` of the same dimension: if the directions are shared, it is
    much larger for points that took no part in finding them.

    Parameters
    ----------
    margin : callable
        F: (n, *input_shape) -> (n,), each row for itself.
    z : Tensor of shape (n, *input_shape)
        Points.
    basis : Tensor of shape (m, *input_shape)
        Unit vectors.
    method, step, evaluated, batch_size
        As in :func:`normal_curvature`.

    Returns
    -------
    Tensor of shape (n,)
        Mean absolute curvatures, in 1 / input units; NaN where the gradient vanishes.
        Cost: that of :func:`normal_curvature` for m directions.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    Examples
    --------
    The basis spans the one direction in which this cylinder is curved.

    >>> import torch
    >>> from curvdetect.geometry import curvature_in_subspace
    >>> cylinder = lambda x: 2 - x[:, :2].norm(dim=1)
    >>> z = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    >>> basis = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    >>> curvature_in_subspace(cylinder, z, basis, step=1e-3).round(decimals=4)
    tensor([0.5000], dtype=torch.float64)
    """
    if evaluated is None:
        evaluated = margin_value_and_gradient(margin, z, batch_size=batch_size)
    gradient = evaluated[1].flatten(1)
    normal = gradient / gradient.norm(dim=1, keepdim=True)
    basis = check_vectors("basis", basis, z)
    n, m = len(z), len(basis)
    vectors, normals = basis.flatten(1).repeat(n, 1), normal.repeat_interleave(m, dim=0)
    tangents = project_to_tangent(vectors, normals)
    # What is left of a vector along the normal is rounding.
    is_normal = 1 - (vectors * normals).sum(1).abs() < _NORMAL
    curvatures = normal_curvature(
        margin,
        z,
        tangents.reshape(n, m, *z.shape[1:]),
        method=method,
        step=step,
        evaluated=evaluated,
        batch_size=batch_size,
    )
    return curvatures.abs().where(~is_normal.reshape(n, m), torch.nan).nanmean(1)


@torch.no_grad()
def label_changes(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    basis: Tensor,
    *,
    norm: float,
    complement: bool = False,
    n_draws: int = 32,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Measure how often noise in a subspace changes the predicted class.

    Parameters
    ----------
    logits : callable
        f: (n, *input_shape) -> (n, n_classes), each row for itself.
    x : Tensor of shape (n, *input_shape)
        Points.
    basis : Tensor of shape (m, *input_shape)
        Orthonormal vectors that span the subspace.
    norm : float
        L2 length of the noise, in input units; its direction is uniform.
    complement : bool, default=False
        Whether the noise is orthogonal to the subspace instead of in it.
    n_draws : int, default=32
        How often each point is moved. The same noise serves all points.
    generator : torch.Generator, optional
        Source of randomness, on the CPU.
    batch_size : int, optional
        Rows given to `logits` at a time; all at once by default.

    Returns
    -------
    Tensor of shape (n,)
        Share of the draws that changed the class. Cost: n_draws + 1 forward passes a
        row.

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    Examples
    --------
    Only the first input value matters here.

    >>> import torch
    >>> from curvdetect.geometry import label_changes
    >>> logits = lambda x: torch.stack([x[:, 0], -x[:, 0]], dim=1)
    >>> x, axis = torch.tensor([[0.1, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> label_changes(logits, x, axis, norm=1.0, n_draws=9999).round(decimals=1)
    tensor([0.5000])
    >>> label_changes(logits, x, axis, norm=1.0, complement=True)
    tensor([0.])
    """
    check_positive("norm", norm)
    check_count("n_draws", n_draws)
    flat = check_vectors("basis", basis, x).flatten(1)
    if complement and len(flat) >= flat.shape[1]:
        raise ValueError(
            "basis must leave a complement: expected fewer vectors than the "
            f"{flat.shape[1]} input values; got {len(flat)}"
        )
    noise = random_directions(
        n_draws, flat.shape[1:], generator=generator, dtype=x.dtype, device=x.device
    )
    within = noise @ flat.T @ flat
    noise = noise - within if complement else within
    noise = norm * noise / noise.norm(dim=1, keepdim=True)
    noise = noise.reshape(-1, *x.shape[1:])
    label = margin_value(logits, x, batch_size=batch_size).argmax(1)
    changed = []
    for pairs in batches(len(x) * n_draws, batch_size, x.device):
        rows = pairs // n_draws
        moved = logits(x[rows] + noise[pairs % n_draws]).argmax(1)
        changed.append(moved != label[rows])
    return torch.cat(changed).reshape(-1, n_draws).to(x.dtype).mean(1)
