r"""What the learned detector looks at, stage by stage, as numbers that trees read.

A stage asks the network about more neighbours of an image and adds columns: some of the
image, and some of each candidate, a class that the image may have had before an attack.
The candidates are those of the largest other logits; where there are more classes than
candidates, some are those that a companion thinks likeliest.

======= ================================================= ==========
stage   neighbours                                        FE an image
======= ================================================= ==========
0       none: the image itself                            1
1       moved by a pixel, mirrored, in two levels         3
2       moved back, blurred, and a step in one random     4
        direction, both ways: as long as the typical
        distance to the nearest boundary
======= ================================================= ==========

A companion, where there is one, is asked about the image in stage 0; its price, in
passes of the network, is added.

The mean of the last two, against the image, is curvature times slope: how concave the
margins are. All of the clamped network, x -> f(clamp(x)), where the model has bounds: a
neighbour is an input too, and at black and white pixels it matters (docs/bounds.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect.estimators._probes import (
    blurred,
    in_two_levels,
    mirrored,
    moved,
    pixel_axes,
)
from curvdetect.network import TorchModel
from curvdetect.signals import Companion

__all__ = ["N_STAGES", "Columns", "Evidence"]

N_STAGES = 3
#: How many inputs each question of a stage averages; the questions: `neighbours`.
_N_NEIGHBOURS = ((), (1, 1, 1), (1, 1, 2))
#: Candidates for the label before an attack; and how many of them a companion names,
#: of more classes: a strong attack leaves the former label far behind many.
_N_CANDIDATES, _N_NAMED = 9, 4
#: Up to so many classes have columns of their own; more are told apart by rank alone.
_MANY_CLASSES = 32
#: Which column of a candidate holds the network's label, then.
_LABEL = 3
#: Trees compare; beyond this it does not matter how large something is.
_LARGEST = 1e6
#: Rounding of differences of logits, in units in the last place of the largest.
_NOISE = 64


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
    direction : ndarray of shape input_shape
        A unit vector.
    companion : Companion, optional
        A second classifier.
    passes : float, default=0
        What it costs, in forward passes of the network.
    """

    model: TorchModel
    n_classes: int
    scale: float
    direction: npt.NDArray[np.float64]
    companion: Companion | None = None
    passes: float = 0.0

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold the network, and the companion, as ``TorchModel.evaluating`` does."""
        with ExitStack() as held:
            held.enter_context(self.model.evaluating())
            if self.companion is not None:
                held.enter_context(self.companion.model.evaluating())
            yield

    def costs(self) -> tuple[float, ...]:
        """Return what each stage adds, in forward-equivalents an image.

        Returns
        -------
        tuple of float
            One for each stage.
        """
        return tuple(float(sum(of)) or 1.0 + self.passes for of in _N_NEIGHBOURS)

    def n_columns(self, stage: int) -> tuple[int, int]:
        """Return how many columns images and candidates have up to a stage."""
        by_class = self.n_classes <= _MANY_CLASSES
        n_others = self.n_classes - 1
        n_probes = sum(len(of) for of in _N_NEIGHBOURS[: stage + 1])
        image = 2 + min(4, n_others) + by_class * self.n_classes
        image += n_probes * (4 + min(3, n_others))
        candidate = 2 + 2 * by_class + 5 * n_probes
        if self.companion is not None:
            image, candidate = image + 3 + by_class * self.n_classes, candidate + 3
        return image, candidate

    def against(self, columns: Columns) -> Tensor | None:
        """Return the odds that the companion gives against the network's labels.

        Parameters
        ----------
        columns : Columns
            Of n images, at any stage.

        Returns
        -------
        Tensor of shape (n,), or None
            Log-odds; None without a companion.
        """
        if self.companion is None:
            return None
        return columns.image[:, self.n_columns(0)[0] - 1]

    def labels(self, columns: Columns) -> Tensor | None:
        """Return the network's labels, where classes have columns of their own.

        Parameters
        ----------
        columns : Columns
            Of n images, at any stage.

        Returns
        -------
        Tensor of shape (n,), int64, or None
            None of more classes.
        """
        if self.n_classes > _MANY_CLASSES:
            return None
        return columns.candidate[:, 0, _LABEL].long()

    def neighbours(self, stage: int, x: Tensor) -> list[tuple[Tensor, ...]]:
        """Return the inputs that a stage asks the network about.

        Parameters
        ----------
        stage : int
            Which, from 0.
        x : Tensor of shape (n, *input_shape)
            Images.

        Returns
        -------
        list of tuple of Tensor
            Of the shape of x; the logits of those in a tuple are averaged.
        """
        axes = pixel_axes(tuple(x.shape[1:]))
        if stage == 0:
            return []
        if stage == 1:
            levels = in_two_levels(x)
            return [(moved(x, axes, 1),), (mirrored(x, axes),), (levels,)]
        step = self.scale * torch.as_tensor(self.direction).to(x)
        return [(moved(x, axes, -1),), (blurred(x, axes),), (x + step, x - step)]

    def measured(
        self, stage: int, x: Tensor, logits: Tensor, so_far: Columns | None
    ) -> Columns:
        """Measure a stage.

        Parameters
        ----------
        stage : int
            Which, from 0.
        x : Tensor of shape (n, *input_shape)
            Images.
        logits : Tensor of shape (n, n_classes)
            Of the network.
        so_far : Columns or None
            What the stages before it found of them; None for the first.

        Returns
        -------
        Columns
            The same, and what this one finds.
        """
        if so_far is None:
            if self.companion is None:
                return self._alone(logits, self._candidates(logits))
            bounds = self.model.bounds
            own = self.companion.log_probabilities(x, bounds, self.n_classes)
            alone = self._alone(logits, self._candidates(logits, own))
            return self._judged(alone, logits, own, self.companion.eps)
        found = so_far
        for inputs in self.neighbours(stage, x):
            near = torch.stack([self.model.logits(each) for each in inputs])
            near = near.double().mean(dim=0)
            found = found.joined(self._beside(logits, near, so_far.classes))
        return found

    def _candidates(self, logits: Tensor, judged: Tensor | None = None) -> Tensor:
        """Return the classes that an image may have had before an attack."""
        order = _ranked(logits)
        k = min(_N_CANDIDATES, self.n_classes - 1)
        if judged is None or k == self.n_classes - 1:
            return order[:, 1 : k + 1]
        first = order[:, : k + 1 - _N_NAMED]  # the label itself is the first of these
        named = _ranked(judged.scatter(1, first, -torch.inf))[:, :_N_NAMED]
        return torch.cat([first[:, 1:], named], dim=1)

    def _alone(self, of_image: Tensor, classes: Tensor) -> Columns:
        """Return columns of the logits."""
        logits = of_image.double()
        order = _ranked(logits)
        ranked = logits.gather(1, order)
        gaps = ranked[:, :1] - ranked
        image = [ranked[:, :1], gaps[:, 1:5], (-gaps).exp().sum(1, keepdim=True).log()]
        rank = order.argsort(dim=1).gather(1, classes) - 1
        candidate = [rank, ranked[:, :1] - logits.gather(1, classes)]
        if self.n_classes <= _MANY_CLASSES:
            image.append(logits - ranked[:, :1])
            candidate += [classes, order[:, :1].expand_as(classes)]
        return _rounded(image, candidate, classes, _grid(of_image))

    def _judged(
        self, alone: Columns, of_image: Tensor, judged: Tensor, eps: float
    ) -> Columns:
        """Return columns of logits, and of the companion's log-probabilities."""
        own, grid = judged.double(), _grid(judged, eps)
        log_p = of_image.double().log_softmax(dim=1)
        label = log_p.argmax(dim=1, keepdim=True)
        others = own.scatter(1, label, -torch.inf)
        divergence = (log_p.exp() * (log_p - own)).sum(dim=1, keepdim=True)
        against = others.logsumexp(dim=1, keepdim=True) - own.gather(1, label)
        image = [others.amax(dim=1, keepdim=True), divergence]
        if self.n_classes <= _MANY_CLASSES:
            image.append(own)
        of_classes = own.gather(1, alone.classes)
        candidate = [
            of_classes,
            of_classes - own.gather(1, label),
            of_classes - own.amax(dim=1, keepdim=True),
        ]
        return alone.joined(_rounded([*image, against], candidate, alone.classes, grid))

    def _beside(self, of_image: Tensor, near: Tensor, classes: Tensor) -> Columns:
        """Return columns of how logits change from an image to a neighbour."""
        logits = of_image.double()
        order = _ranked(logits)
        own, decrease = order[:, :1], logits - near
        # How much each margin falls: positive where it is concave, like curvature.
        falls = decrease.gather(1, own) - decrease
        margin = near.gather(1, own) - near
        others = margin.scatter(1, own, torch.inf)
        best = near.scatter(1, own, -torch.inf).amax(dim=1, keepdim=True)
        image = [
            falls.gather(1, order[:, 1:4]),
            falls.amax(dim=1, keepdim=True),
            others.amin(dim=1, keepdim=True),
            -decrease.gather(1, own),
            best - logits.gather(1, order[:, 1:2]),
        ]
        each, close = falls.gather(1, classes), near.gather(1, classes)
        candidate = [
            each,
            each - each.amax(dim=1, keepdim=True),
            (-each).argsort(dim=1, stable=True).argsort(dim=1, stable=True),
            -margin.gather(1, classes),
            close - close.amax(dim=1, keepdim=True),
        ]
        return _rounded(image, candidate, classes, _grid(of_image))


def _ranked(logits: Tensor) -> Tensor:
    """Return the classes by their logits, the largest first."""
    return logits.argsort(dim=1, descending=True, stable=True)


def _grid(logits: Tensor, eps: float = 0.0) -> Tensor:
    """Return what differences of logits are rounded to, (n, 1): a power of two.

    Where a network is linear they are nothing but rounding, which depends on the batch:
    no tree may cut there. `eps` is that of a coarser network.
    """
    largest = logits.abs().amax(dim=1, keepdim=True).double()
    noise = _NOISE * max(torch.finfo(logits.dtype).eps, eps) * largest
    return torch.exp2(noise.clamp_min(torch.finfo(torch.float64).tiny).log2().ceil())


def _rounded(
    image: list[Tensor], candidate: list[Tensor], classes: Tensor, grid: Tensor
) -> Columns:
    """Put columns side by side, as numbers that trees can compare."""
    return Columns(
        _finite(torch.cat([_on_grid(part, grid) for part in image], dim=1)),
        _finite(torch.stack([_on_grid(part, grid) for part in candidate], dim=2)),
        classes,
    )


def _on_grid(values: Tensor, grid: Tensor) -> Tensor:
    """Round to multiples of `grid`; ranks and classes are exact, and stay so."""
    if not values.is_floating_point():
        return values.double()
    return (values.double() / grid).round() * grid


def _finite(columns: Tensor) -> Tensor:
    return columns.nan_to_num(0.0, _LARGEST, -_LARGEST).clamp(-_LARGEST, _LARGEST)
