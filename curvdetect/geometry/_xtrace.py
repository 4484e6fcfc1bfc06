"""The trace of one symmetric operator per row, from products alone."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect.geometry._directions import random_directions
from curvdetect.geometry._operators import Operator

__all__ = ["xtrace"]


def xtrace(
    operator: Operator,
    *,
    n_products: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Estimate traces by XTrace (exchangeable Hutch++), one by each test vector.

    Half of the products find where the matrix is large, and its trace there is exact;
    the rest of the trace is estimated with each test vector in turn, in the complement
    of what the others found. A few large eigenvalues thus add no variance (Epperly,
    Tropp and Webber 2024, with their normalisation). The result has shape (n, m).
    """
    d = operator.points.shape[1]
    m = n_products // 2
    if m > operator.dimension:
        raise ValueError(
            f"n_directions must be at most {2 * operator.dimension} for "
            'estimator="xtrace", twice the dimension; got '
            f'{n_products}. n_directions="all" leaves no error for less'
        )
    # The same for every row, whichever rows it is measured with.
    draws = random_directions(
        2 * m,
        (d,),
        generator=generator,
        dtype=operator.points.dtype,
        device=operator.points.device,
    )
    chunks = operator.chunks(6 * m * d)
    return torch.cat([_estimates(operator, rows, draws) for rows in chunks])


@torch.no_grad()
def _estimates(operator: Operator, rows: Tensor, draws: Tensor) -> Tensor:
    """Return the estimate of each test vector, the first half of `draws`, (n, m)."""
    vectors = draws.expand(len(rows), -1, -1)
    if operator.normal is not None:
        normal = operator.normal[rows, None]
        vectors = vectors - (vectors * normal).sum(2, keepdim=True) * normal
    tests, noise = vectors.chunk(2, dim=1)
    images = operator.on_blocks(rows, tests)
    basis, triangle = _orthonormal_rows(images, noise)
    basis_images = operator.on_blocks(rows, basis)
    return _leave_one_out(
        tests, images, basis, basis_images, triangle, operator.dimension
    )


def _orthonormal_rows(images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Factor the images, with noise far below them that makes up for lost rank."""
    size = images.norm(dim=2, keepdim=True).amax(1, keepdim=True)
    size = size.where(size > 0, 1) * torch.finfo(images.dtype).eps ** 0.5
    basis, triangle = torch.linalg.qr((images + size * noise).mT)
    return basis.mT, triangle


def _leave_one_out(
    tests: Tensor,
    images: Tensor,
    basis: Tensor,
    basis_images: Tensor,
    triangle: Tensor,
    dimension: int,
) -> Tensor:
    """Return the estimate that each test vector gives, (n, m).

    Vectors are rows here. The complement of image i in the span of all is the unit
    vector s_i: row i of the inverse of the triangle.
    """
    m = tests.shape[1]
    s = torch.linalg.inv(triangle)
    s = s / s.norm(dim=2, keepdim=True)
    # With Q the basis, what is left without image i is Q_i = Q - s_i s_i' Q. The
    # exact part is tr(Q_i A Q_i') = tr(Q A Q') - s_i' (Q A Q') s_i: one product.
    inner = basis @ basis_images.mT
    trace_without = inner.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    trace_without = trace_without - ((s @ inner) * s).sum(2)
    # Test vector i without its part in Q_i: r_i = (1 - Q_i' Q_i) w_i. No new product is
    # needed for its image: A r_i = A w_i - (coordinates of w_i in Q_i) A Q.
    found = tests @ basis.mT
    found = found - (found * s).sum(2, keepdim=True) * s
    rest = tests - found @ basis
    rest_images = images - found @ basis_images
    # r_i' A r_i / |r_i|^2 is the mean eigenvalue in the complement of Q_i, if r_i is of
    # random direction there; the complement has d - (m - 1) dimensions.
    quadratic = (rest * rest_images).sum(2) / rest.square().sum(2)
    return trace_without + (dimension - m + 1) * quadratic
