"""The detector's score with a gradient, for attackers who know it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from curvdetect._base.checks import check_count
from curvdetect._base.rows import per_row
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.geometry import PairwiseMargin, random_directions
from curvdetect.geometry._directions import project_to_tangent
from curvdetect.signals._measure import Located, curvatures, locate

__all__ = ["CurvatureScore"]


class CurvatureScore:
    r"""The largest curvatures around an image, differentiable in the image.

    The values are those of a fitted featurizer. For the gradient the boundary point z
    follows the image along the boundary, dz = (I - n n^T) dx, as it does for a flat
    boundary; its normal and the steepness of the margin there are held fixed. So an
    attacker sees how the curvature

    .. math:: \kappa = -\frac{1}{m h^2 |\nabla F(z)|}
              \sum_k \bigl(F(z + h v_k) - 2 F(z) + F(z - h v_k)\bigr)

    changes, which the detector's own search for z does not tell.

    Parameters
    ----------
    featurizer : CurvatureFeaturizer
        Fitted, with ``at="boundary"``, ``method="forward"`` and
        ``features=("curvature",)``.
    n_largest : int, default=1
        How many boundaries are differentiated at each step: those of the largest
        curvature. More made no attack stronger that we tried.
    fresh_directions : bool, default=False
        Whether each call draws directions of its own instead of using the
        featurizer's: the expectation over what the attacker does not know.
    seed : int, default=0
        Of these directions.

    Raises
    ------
    ValueError
        If the featurizer measures something else.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> from curvdetect.evasion import CurvatureScore
    >>> from curvdetect.study.networks import LeNet
    >>> model = TorchModel(LeNet().eval(), input_shape=(1, 28, 28))
    >>> X = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    >>> featurizer = CurvatureFeaturizer(model, random_state=0).fit(X)
    >>> x = torch.from_numpy(X).requires_grad_()
    >>> score = CurvatureScore(featurizer, n_largest=2)(x)
    >>> score.shape
    torch.Size([3, 2])
    >>> torch.autograd.grad(score.sum(), x)[0].shape
    torch.Size([3, 1, 28, 28])
    """

    def __init__(
        self,
        featurizer: CurvatureFeaturizer,
        *,
        n_largest: int = 1,
        fresh_directions: bool = False,
        seed: int = 0,
    ) -> None:
        check_is_fitted(featurizer)
        wanted = {"at": "boundary", "method": "forward", "features": ("curvature",)}
        for name, value in wanted.items():
            got = getattr(featurizer, name)
            got = tuple(got) if name == "features" else got
            if got != value:
                raise ValueError(f"featurizer must have {name}={value!r}; got {got!r}")
        if featurizer.directions_ is None:
            raise ValueError('featurizer must have some n_directions; got "all"')
        check_count("n_largest", n_largest)
        self.featurizer = featurizer
        self.n_largest = n_largest
        self.fresh_directions = fresh_directions
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the largest curvatures of every image.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images; as many as the network's activations fit into memory for, times
            n_largest (2 n_directions + 1) and the number of steps.

        Returns
        -------
        Tensor of shape (n, n_steps * k)
            For each step of the featurizer its k = min(n_largest, n_boundaries)
            largest curvatures, the largest first, in 1 / input units. Minus infinity
            for a boundary that was not found; the largest number for an image without
            any, which detectors flag. Cost: that of the featurizer and 2 n_directions +
            1 more for each column, three times that if its gradient is taken.
        """
        model, directions = self.featurizer.model_, self._directions(x)
        probe = replace(self.featurizer._probe(x), directions=directions)
        if not len(x):
            n_largest = min(self.n_largest, probe.n_boundaries)
            return x.new_empty(0, len(probe.curvature_steps) * n_largest)
        with model.evaluating():
            at = locate(model, x.detach(), probe)
            columns = [
                column
                for step, values in zip(
                    probe.curvature_steps, curvatures(model, at, probe), strict=True
                )
                for column in self._largest(x, at, values, directions, step)
            ]
        return torch.stack(columns, dim=1)

    def _largest(
        self,
        x: Tensor,
        at: Located,
        curvature: Tensor,
        directions: Tensor,
        step: float,
    ) -> Iterator[Tensor]:
        """Yield the largest curvature of each image, the next, ..., with a graph."""
        n, k = at.start.classes.shape
        found = (at.found & curvature.isfinite()).reshape(n, k)
        curvature = curvature.reshape(n, k).where(found, -torch.inf)
        largest = curvature.topk(min(self.n_largest, k), dim=1)
        missing = x.new_full((n,), -torch.inf)
        missing[~found.any(1)] = torch.finfo(x.dtype).max
        for rank, values in zip(largest.indices.T, largest.values.T, strict=True):
            # Only where there is one: a gradient through NaN stays NaN.
            (good,) = values.isfinite().nonzero(as_tuple=True)
            rows = rank[good] + k * good
            column = _curvature(
                at.margin.take(rows),
                at.points[rows],
                at.gradient[rows],
                x[good],
                directions,
                step,
            )
            yield missing.index_put((good,), column)

    def _directions(self, x: Tensor) -> Tensor:
        """Return the featurizer's, or others."""
        known = torch.from_numpy(self.featurizer.directions_).to(x)
        if not self.fresh_directions:
            return known
        return random_directions(
            len(known),
            x.shape[1:],
            generator=self.generator,
            dtype=x.dtype,
            device=x.device,
        )


def _curvature(
    margin: PairwiseMargin,
    z: Tensor,
    gradient: Tensor,
    x: Tensor,
    directions: Tensor,
    step: float,
) -> Tensor:
    """Return one curvature an image, with z following x along the boundary."""
    n, m = len(x), len(directions)
    steepness = gradient.flatten(1).norm(dim=1)
    normal = gradient / per_row(steepness, x)
    change = x - x.detach()
    across = (change * normal).flatten(1).sum(1)
    z = z + change - per_row(across, x) * normal
    rows = torch.arange(n, device=x.device).repeat_interleave(m)
    tangents = project_to_tangent(
        directions.flatten(1).repeat(n, 1), normal.flatten(1)[rows]
    ).reshape(-1, *x.shape[1:])
    along = margin.take(rows)
    ahead, behind = along(z[rows] + step * tangents), along(z[rows] - step * tangents)
    second = (ahead + behind).reshape(n, m).mean(1) - 2 * margin(z)
    return -second / (step**2 * steepness)
