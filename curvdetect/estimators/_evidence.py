r"""What the learned detector looks at, stage by stage, as numbers that trees read.

A stage measures something dearer than the last and adds its columns: some of the image,
and some of each candidate, a class that the image may have had before an attack. The
candidates are those of the largest other logits.

======= ================================================= ==========
stage   what is measured                                  FE an image
======= ================================================= ==========
0       logits                                            1
1       mean decrease of all logits, one direction both   4
        ways, at one and eight times the typical distance
        to the nearest boundary
2       curvature and distance of three boundaries        61
======= ================================================= ==========

All of the clamped network, x -> f(clamp(x)), where the model has bounds: a probe is an
input too, and at black and white pixels it matters (docs/bounds.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect.network import TorchModel
from curvdetect.network.boundaries import diagonal
from curvdetect.signals import (
    Around,
    Curvature,
    Distance,
    Setup,
    Signal,
    arranged_by_class,
    arranged_by_distance,
    joint_cost,
    measure_signals,
)

__all__ = ["N_STAGES", "Columns", "Evidence"]

N_STAGES = 3
#: Candidates for the label before an attack.
_N_CANDIDATES = 9
#: Up to so many classes have columns of their own; more are told apart by rank alone.
_MANY_CLASSES = 32
#: Steps of the second stage, as multiples of the typical distance.
_SCALES = (1.0, 8.0)
_N_BOUNDARIES = 3
#: Trees compare; beyond this it does not matter how large something is.
_LARGEST = 1e6
#: Rounding of differences of logits, in units in the last place of the largest.
_NOISE = 64
#: What curvatures and distances are rounded to, in the network's own unit of length.
_FINENESS = 2.0**-12


class Columns(NamedTuple):
    """What a stage and those before it found of n images.

    Attributes
    ----------
    image : Tensor of shape (n, n_image_columns), float64
        Of each image.
    candidate : Tensor of shape (n, k, n_candidate_columns), float64
        Of each class that it may have had before.
    classes : Tensor of shape (n, k), int64
        Which these are.
    """

    image: Tensor
    candidate: Tensor
    classes: Tensor

    def take(self, rows: Tensor) -> Columns:
        """Return some of the images."""
        return Columns(*(part[rows] for part in self))

    def joined(self, more: Columns) -> Columns:
        """Return these columns and those of another stage beside them."""
        return Columns(
            torch.cat([self.image, more.image], dim=1),
            torch.cat([self.candidate, more.candidate], dim=2),
            self.classes,
        )


@dataclass(frozen=True)
class Evidence:
    """Measures the stages of one network.

    Attributes
    ----------
    model : TorchModel
        The network, clamped.
    n_classes : int
        Number of logits.
    scale : float
        Typical distance to the nearest boundary, an L2 length in input units.
    directions : ndarray of shape (m, *input_shape)
        Unit directions; the first serves the second stage, all serve the third.
    """

    model: TorchModel
    n_classes: int
    scale: float
    directions: npt.NDArray[np.float64]

    @cached_property
    def cheap(self) -> Setup:
        """Of the first two stages."""
        return Setup(
            n_classes=self.n_classes,
            input_shape=tuple(self.directions.shape[1:]),
            n_boundaries=1,
            directions=self.directions[:1],
        )

    @cached_property
    def dear(self) -> Setup:
        """Of the last stage."""
        k = min(_N_BOUNDARIES, self.n_classes - 1)
        return Setup(
            n_classes=self.n_classes,
            input_shape=tuple(self.directions.shape[1:]),
            n_boundaries=k,
            n_curved=int(1 < k < self.n_classes - 1),
            thorough=False,  # the cost of a decision has a bound, on plateaus too
            steps=(self.scale,),
            directions=self.directions,
        )

    @cached_property
    def _boundary_signals(self) -> tuple[Signal, ...]:
        return Curvature().resolved(self.dear), Distance().resolved(self.dear)

    def costs(self) -> tuple[float, ...]:
        """Return what each stage adds, in forward-equivalents an image.

        Returns
        -------
        tuple of float
            One for each stage.
        """
        decrease = 2.0 * len(_SCALES)
        return 1.0, decrease, joint_cost(self._boundary_signals, self.n_classes)

    def n_columns(self, stage: int) -> tuple[int, int]:
        """Return how many columns images and candidates have up to a stage."""
        by_class = self.n_classes <= _MANY_CLASSES
        n_ranks = min(4, self.n_classes - 1)
        image = [2 + n_ranks + by_class * self.n_classes]
        image += [len(_SCALES) * (4 + min(3, self.n_classes - 1))]
        image += [2 * self.dear.n_boundaries]
        candidate = [2 + 2 * by_class, 5 * len(_SCALES), 3]
        return sum(image[: stage + 1]), sum(candidate[: stage + 1])

    def around(self, x: Tensor) -> Around:
        """Return what the first two stages share around a batch of images."""
        return Around(self.model, x, self.cheap)

    def measured(self, stage: int, around: Around, so_far: Columns | None) -> Columns:
        """Measure a stage.

        Parameters
        ----------
        stage : int
            Which, from 0.
        around : Around
            The images.
        so_far : Columns or None
            What the stages before it found of them; None for the first.

        Returns
        -------
        Columns
            The same, and what this one finds.
        """
        if so_far is None:
            return self.first(around)
        return (self.second, self.third)[stage - 1](around, so_far)

    def first(self, around: Around) -> Columns:
        """Return the columns of the first stage: what the logits say."""
        logits = around.logits.double()
        order, classes = self._ranked(logits)
        ranked = logits.gather(1, order)
        gaps = ranked[:, :1] - ranked
        image = [ranked[:, :1], gaps[:, 1:5], (-gaps).exp().sum(1, keepdim=True).log()]
        k = classes.shape[1]
        rank = torch.arange(k, device=logits.device).expand(len(logits), -1)
        candidate = [rank, gaps[:, 1 : k + 1]]
        if self.n_classes <= _MANY_CLASSES:
            image.append(logits - ranked[:, :1])
            candidate += [classes, order[:, :1].expand_as(classes)]
        return _rounded(image, candidate, classes, _grid(around.logits))

    def second(self, around: Around, so_far: Columns) -> Columns:
        """Return the same with those of the second stage: what neighbours say."""
        logits = around.logits.double()
        order, classes = self._ranked(logits)
        own = order[:, :1]
        image: list[Tensor] = []
        candidate: list[Tensor] = []
        for multiple in _SCALES:
            decrease = around.decrease(multiple * self.scale).double()
            near = logits - decrease  # the mean of the logits nearby
            # How much each margin falls: positive where it is concave, like curvature.
            falls = decrease.gather(1, own) - decrease
            margin = near.gather(1, own) - near
            others = margin.scatter(1, own, torch.inf)
            best = near.scatter(1, own, -torch.inf).amax(dim=1, keepdim=True)
            image += [
                falls.gather(1, order[:, 1:4]),
                falls.amax(dim=1, keepdim=True),
                others.amin(dim=1, keepdim=True),
                -decrease.gather(1, own),
                best - logits.gather(1, order[:, 1:2]),
            ]
            each, close = falls.gather(1, classes), near.gather(1, classes)
            candidate += [
                each,
                each - each.amax(dim=1, keepdim=True),
                (-each).argsort(dim=1, stable=True).argsort(dim=1, stable=True),
                -margin.gather(1, classes),
                close - close.amax(dim=1, keepdim=True),
            ]
        return so_far.joined(_rounded(image, candidate, classes, _grid(around.logits)))

    def third(self, around: Around, so_far: Columns) -> Columns:
        """Return the same with those of the third stage: what boundaries say."""
        there = Around(self.model, around.x, self.dear)
        measured = measure_signals(there, self._boundary_signals)
        far = min(diagonal(self.model, self.dear.n_values), _LARGEST)
        blanks = torch.tensor([0.0, far]).to(measured.boundaries)
        # In the network's own unit of length: curvature times it, distance by it.
        unit = torch.tensor([self.scale, 1 / self.scale]).to(blanks)[:, None]
        nearest = unit * arranged_by_distance(measured, blanks)
        by_class = unit * arranged_by_class(measured, self.n_classes)
        classes = so_far.classes
        each = by_class.gather(2, classes[:, None].expand(-1, 2, -1))
        known = each.isfinite()
        each = torch.where(known, each, unit * blanks[:, None])
        candidate = [each[:, 0], each[:, 1], known[:, 0]]
        grid = nearest.new_tensor(_FINENESS)
        return so_far.joined(_rounded([nearest.flatten(1)], candidate, classes, grid))

    def _ranked(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the classes by their logits, and the candidates among them."""
        order = logits.argsort(dim=1, descending=True, stable=True)
        return order, order[:, 1 : min(_N_CANDIDATES, self.n_classes - 1) + 1]


def _grid(logits: Tensor) -> Tensor:
    """Return what differences of logits are rounded to, (n, 1): a power of two.

    Where a network is linear they are nothing but rounding, which depends on the batch:
    no tree may cut there.
    """
    largest = logits.abs().amax(dim=1, keepdim=True).double()
    noise = _NOISE * torch.finfo(logits.dtype).eps * largest
    return torch.exp2(noise.clamp_min(torch.finfo(torch.float64).tiny).log2().ceil())


def _rounded(
    image: list[Tensor], candidate: list[Tensor], classes: Tensor, grid: Tensor
) -> Columns:
    """Put columns side by side, as numbers that trees can compare."""
    columns = torch.cat([part.double() for part in image], dim=1)
    of_candidates = torch.stack([part.double() for part in candidate], dim=2)
    return Columns(
        _finite((columns / grid).round() * grid),
        _finite((of_candidates / grid[..., None]).round() * grid[..., None]),
        classes,
    )


def _finite(columns: Tensor) -> Tensor:
    return columns.nan_to_num(0.0, _LARGEST, -_LARGEST).clamp(-_LARGEST, _LARGEST)
