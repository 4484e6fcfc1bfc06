"""The detector's features with a gradient, for attackers who know it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from curvdetect._base.checks import check_count
from curvdetect.estimators import CurvatureFeaturizer
from curvdetect.geometry import random_directions
from curvdetect.signals import Around, BoundarySignal, Curvature

__all__ = ["SignalScore"]


class SignalScore:
    r"""What a featurizer measures around an image, differentiable in the image.

    The values are those of a fitted featurizer: of its signals of boundaries the
    largest ones of each image, of its other signals all columns. For the gradient the
    boundary point z follows the image along the boundary, dz = (I - n n^T) dx, as it
    does for a flat boundary; its normal and the steepness of the margin there are held
    fixed, and so are gradients at the image. So an attacker sees how the curvature

    .. math:: \kappa = -\frac{1}{m h^2 |\nabla F(z)|}
              \sum_k \bigl(F(z + h v_k) - 2 F(z) + F(z - h v_k)\bigr)

    changes, which the detector's own search for z does not tell.

    Parameters
    ----------
    featurizer : CurvatureFeaturizer
        Fitted. Curvature must be taken by ``method="forward"``.
    n_largest : int, default=1
        How many boundaries are differentiated at each step: those of the largest
        value. More made no attack stronger that we tried.
    fresh_directions : bool, default=False
        Whether each call draws directions of its own instead of using the
        featurizer's: the expectation over what the attacker does not know.
    seed : int, default=0
        Of these directions.

    Raises
    ------
    ValueError
        If the featurizer measures what has no such gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from curvdetect import CurvatureFeaturizer, TorchModel
    >>> from curvdetect.evasion import SignalScore
    >>> from curvdetect.study.networks import LeNet
    >>> model = TorchModel(LeNet().eval(), input_shape=(1, 28, 28))
    >>> X = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    >>> featurizer = CurvatureFeaturizer(model, random_state=0).fit(X)
    >>> x = torch.from_numpy(X).requires_grad_()
    >>> score = SignalScore(featurizer, n_largest=2)(x)
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
        check_count("n_largest", n_largest)
        for signal in featurizer.signals_:
            if isinstance(signal, Curvature) and signal.method != "forward":
                raise ValueError(
                    'featurizer must take curvature by method="forward", which has a '
                    f"gradient; got {signal.method!r}"
                )
        if fresh_directions and featurizer.directions_ is None:
            raise ValueError(
                "fresh_directions needs a featurizer with some n_directions; got "
                '"all", which leaves nothing to draw'
            )
        self.model, self.setup = featurizer.model_, featurizer.setup_
        self.signals = [
            part for signal in featurizer.signals_ for part in signal.parts()
        ]
        self.n_largest = min(n_largest, self.setup.n_boundaries)
        self.fresh_directions = fresh_directions
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the largest values of every image.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images; as many as the network's activations fit into memory for, times
            2 n_directions + 1.

        Returns
        -------
        Tensor of shape (n, n_columns)
            For each signal of the featurizer, and each step of it, the
            min(n_largest, n_boundaries) largest values, the largest first; or the
            columns of a signal that is not of boundaries. Minus infinity for a
            boundary that was not found; the largest number for an image without any,
            which detectors flag. Cost: that of the featurizer, and that of the signal
            for each column, three times if its gradient is taken.
        """
        setup = replace(self.setup, directions=self._directions(x))
        with self.model.evaluating():
            around = Around(self.model, x.detach(), setup)
            columns: list[Tensor] = []
            for signal in self.signals:
                if isinstance(signal, BoundarySignal):
                    columns += self._largest(x, around, signal)
                else:
                    columns.append(signal.measure(around.attached(x)))
        return torch.cat(columns, dim=1)

    def _largest(
        self, x: Tensor, around: Around, signal: BoundarySignal
    ) -> Iterator[Tensor]:
        """Yield the largest value of each image, the next, ..., with a graph."""
        values = signal.measure_boundaries(around).squeeze(1)
        at = around.located("boundary" if around.searched else "input")
        good = around.pairs.by_point(at.found) & values.isfinite()
        largest = values.where(good, -torch.inf).topk(self.n_largest, dim=1)
        missing = x.new_full((len(x),), -torch.inf)
        missing[~good.any(1)] = torch.finfo(x.dtype).max
        for rank, value in zip(largest.indices.T, largest.values.T, strict=True):
            # Only where there is one: a gradient through NaN stays NaN.
            (rows,) = value.isfinite().nonzero(as_tuple=True)
            part = around.take(rows).select(rank[rows, None]).attached(x[rows])
            column = signal.measure_boundaries(part).flatten()
            yield missing.index_put((rows,), column)[:, None]

    def _directions(self, x: Tensor) -> npt.NDArray[Any] | None:
        """Return the featurizer's, or others."""
        known = self.setup.directions
        if known is None or not self.fresh_directions:
            return known
        return random_directions(
            len(known), x.shape[1:], generator=self.generator, dtype=x.dtype
        ).numpy()
