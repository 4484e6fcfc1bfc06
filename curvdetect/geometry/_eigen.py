"""Eigenpairs of one symmetric matrix per row: all of them, or the leading few."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from curvdetect._base.rows import batches
from curvdetect.geometry._directions import random_directions
from curvdetect.geometry._operators import Operator

__all__ = ["Spectrum", "Which", "dense_eigenpairs", "leading_eigenpairs"]

#: Which eigenvalues: the largest in absolute value, the most positive, the most
#: negative.
Which: TypeAlias = Literal["magnitude", "largest", "smallest"]

#: A unit vector of which less is left is in the span of the others.
_DEPENDENT = 1e-5
#: A dense matrix of more numbers than this is refused.
_LARGEST_MATRIX = 2**30


class Spectrum(NamedTuple):
    """Eigenvalues and unit eigenvectors, from the most positive to the most negative.

    Attributes
    ----------
    values : Tensor of shape (n, k)
        Eigenvalues; NaN where there are none, because a gradient vanishes or is not
        finite.
    directions : Tensor of shape (n, k, *input_shape), or None
        Unit eigenvectors, orthogonal to each other, of either sign; NaN where there
        are none; None if they were not asked for.
    converged : Tensor of shape (n,), bool
        Whether all residuals are within the tolerance; for a dense solution, whether
        there are eigenvalues.
    """

    values: Tensor
    directions: Tensor | None
    converged: Tensor


@torch.no_grad()
def dense_eigenpairs(operator: Operator, *, directions: bool) -> Spectrum:
    """Solve by the whole matrices, symmetrised: differences are not quite symmetric."""
    space, size = operator.space, operator.dimension
    if size**2 > _LARGEST_MATRIX:
        raise ValueError(
            f"k must be given for inputs of {operator.points.shape[1]} values: all "
            f"eigenvalues need a matrix of {size} x {size} numbers; the leading few "
            "need none"
        )
    batch_size = operator.differences.batch_size
    parts = []
    for rows in operator.chunks(size**2):
        columns = operator.points.new_empty(len(rows) * size, size)
        for pairs in batches(len(columns), batch_size, rows.device):
            row, k = rows[pairs // size], pairs % size
            image = operator(row, space.columns(row, k))
            columns[pairs] = space.coordinates(row, image)
        matrix = columns.reshape(-1, size, size)
        matrix = (matrix + matrix.mT) / 2
        finite = matrix.isfinite().flatten(1).all(1)
        matrix = matrix.where(finite[:, None, None], 0)
        if directions:
            values, vectors = _eigh(matrix)
            coordinates = vectors.flip(2).mT.flatten(0, 1)
            vectors = space.embed(rows.repeat_interleave(size), coordinates)
            vectors = vectors.reshape(len(rows), size, operator.points.shape[1])
            vectors = vectors.where(finite[:, None, None], torch.nan)
        else:
            values, vectors = _eigvalsh(matrix), matrix.new_empty(0)
        values = values.flip(1).where(finite[:, None], torch.nan)
        parts.append((values, vectors, finite))
    return Spectrum(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def leading_eigenpairs(
    operator: Operator,
    *,
    k: int,
    which: Which,
    tol: float,
    max_iter: int,
    generator: torch.Generator | None,
) -> Spectrum:
    """Solve for the leading k eigenpairs by products alone."""
    # All rows start alike, whichever rows they are solved with.
    seed = int(torch.randint(2**62, (), generator=generator))
    d = operator.points.shape[1]
    parts = [
        _block_lanczos(operator, rows, k, which, tol, max_iter, seed)
        for rows in operator.chunks(2 * _largest_basis(k) * d)
    ]
    return Spectrum(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _largest_basis(k: int) -> int:
    """Return how many basis vectors are held before a restart."""
    return max(6 * k, 32)


def _block_lanczos(
    operator: Operator,
    rows: Tensor,
    k: int,
    which: Which,
    tol: float,
    max_iter: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve for some rows by block Lanczos with restarts.

    Blocks of k vectors find eigenvalues of any multiplicity up to k; the best 2 k Ritz
    vectors survive a restart ("thick restart", Wu and Simon 2000). Residuals are
    computed instead of taken from the recurrence, and the basis is orthogonalised
    against all of itself: finite differences are neither quite symmetric nor linear.
    """
    generator = torch.Generator().manual_seed(seed)
    n, d = len(rows), operator.points.shape[1]
    values = operator.points.new_full((n, k), torch.nan)
    vectors = operator.points.new_full((n, k, d), torch.nan)
    converged = torch.zeros(n, dtype=torch.bool, device=rows.device)
    active = torch.arange(n, device=rows.device)
    basis = images = operator.points.new_empty(n, 0, d)
    block = operator.points.new_zeros(n, k, d)  # no residuals yet: all random
    for _ in range(max_iter):
        size = min(k, operator.dimension - basis.shape[1])
        spare = random_directions(
            size, (d,), generator=generator, dtype=basis.dtype, device=basis.device
        )
        taken = basis
        if operator.normal is not None:
            taken = torch.cat([operator.normal[rows[active], None], basis], dim=1)
        block = _orthonormal(block[:, :size], taken, spare)
        basis = torch.cat([basis, block], dim=1)
        images = torch.cat([images, operator.on_blocks(rows[active], block)], dim=1)

        finite = images.isfinite().flatten(1).all(1)
        active, basis, images = active[finite], basis[finite], images[finite]
        projected = basis @ images.mT
        theta, y = _eigh((projected + projected.mT) / 2)
        wanted = _wanted(theta, k, which)
        ritz = _columns(y, wanted).mT
        values[active], vectors[active] = theta.gather(1, wanted), ritz @ basis
        block = ritz @ images - values[active, :, None] * vectors[active]
        error = block.norm(dim=2).amax(1)
        converged[active] = error <= tol * theta.abs().amax(1)
        if basis.shape[1] == operator.dimension:  # a basis of the whole space is exact
            converged[active] = True

        ahead = ~converged[active]
        active, basis, images = active[ahead], basis[ahead], images[ahead]
        block = block[ahead]
        if not len(active):
            break
        if basis.shape[1] + k > _largest_basis(k):
            kept = _columns(y[ahead], _wanted(theta[ahead], 2 * k, which)).mT
            basis, images = kept @ basis, kept @ images
    return values, vectors, converged


def _orthonormal(block: Tensor, basis: Tensor, spare: Tensor) -> Tensor:
    """Make blocks orthonormal, and orthogonal to a basis; all of shape (n, m, d).

    A vector in the span of those before it is replaced by a spare one.
    """
    n_before = basis.shape[1]
    for c in range(block.shape[1]):
        vector, left = _orthogonal_part(block[:, c], basis)
        if bool((left < _DEPENDENT).any()):
            other, _ = _orthogonal_part(spare[c].expand_as(vector), basis)
            vector = vector.where(left >= _DEPENDENT, other)
        basis = torch.cat([basis, vector[:, None]], dim=1)
    return basis[:, n_before:]


def _orthogonal_part(vector: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit vector of what a basis leaves, and how much was left."""
    vector, left = _unit(vector)
    left = (left > 0).to(vector)  # a share, not a length
    for _ in range(2):  # one projection is not enough in floating point, two are
        along = basis @ vector[:, :, None]
        vector, norm = _unit(vector - (basis.mT @ along).squeeze(2))
        left = left * norm
    return vector, left


def _unit(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors and lengths; zero stays zero."""
    norm = vector.norm(dim=1, keepdim=True)
    return (vector / norm).where(norm > 0, 0), norm


def _eigvalsh(matrix: Tensor) -> Tensor:
    """Return eigenvalues, ascending; in double precision, for the reason of _eigh."""
    return torch.linalg.eigvalsh(matrix.double()).to(matrix.dtype)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors of every symmetric matrix.

    In double precision: in single, LAPACK gives up on many matrices of a trained
    network, whose entries are zero or span ten orders of magnitude.
    """
    values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(matrix.dtype), vectors.to(matrix.dtype)


def _wanted(values: Tensor, k: int, which: Which) -> Tensor:
    """Return the positions of k values in every row, from the most positive on."""
    key = {"magnitude": values.abs(), "largest": values, "smallest": -values}[which]
    wanted = key.topk(k, dim=1).indices
    order = values.gather(1, wanted).argsort(dim=1, descending=True)
    return wanted.gather(1, order)


def _columns(matrix: Tensor, wanted: Tensor) -> Tensor:
    """Return some columns of every matrix, (n, a, b) and (n, k) -> (n, a, k)."""
    return matrix.gather(2, wanted[:, None].expand(-1, matrix.shape[1], -1))
