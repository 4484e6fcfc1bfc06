"""Signals measured around images: k boundaries each, and the classes they are to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect.network.boundaries import undefined
from curvdetect.network.checks import check_defined
from curvdetect.signals._around import Around
from curvdetect.signals.base import BoundarySignal, Signal, by_class

__all__ = ["Measured", "arranged_by_class", "arranged_by_distance", "measure_signals"]


class Measured(NamedTuple):
    """What signals measured around n images, with k boundaries each.

    Attributes
    ----------
    logits : Tensor of shape (n, n_classes)
        Of each image.
    classes : Tensor of shape (n, k), int64
        The other class of each boundary.
    found : Tensor of shape (n, k), bool
        Whether there is such a boundary.
    distances : Tensor of shape (n, k)
        To it; to first order where no signal needed a point on it.
    boundaries : Tensor of shape (n, n_blocks, k)
        Values of the signals of boundaries, block by block.
    images : Tensor of shape (n, n_columns)
        Columns of the other signals, one signal after the other.
    """

    logits: Tensor
    classes: Tensor
    found: Tensor
    distances: Tensor
    boundaries: Tensor
    images: Tensor


def measure_signals(
    around: Around, signals: Sequence[Signal], *, by_distance: bool = False
) -> Measured:
    """Measure several signals; what they share is computed once.

    Parameters
    ----------
    around : Around
        The images and the network.
    signals : sequence of Signal
        Resolved.
    by_distance : bool, default=False
        Whether distances will order the boundaries: then they are searched for, if
        curvature is taken there.

    Returns
    -------
    Measured
        Values; without signals of boundaries, k is 0.
    """
    n, n_classes = len(around), around.setup.n_classes
    values: dict[int, Tensor] = {}
    # The dearest first: it knows of the most gradients, which serve the others.
    order = sorted(enumerate(signals), key=lambda pair: -pair[1].cost(n_classes))
    for position, signal in order:
        if isinstance(signal, BoundarySignal):
            values[position] = signal.measure_boundaries(around)
        else:
            values[position] = _checked(signal, signal.measure(around), n, n_classes)
    of_boundaries = [isinstance(signal, BoundarySignal) for signal in signals]
    blocks = [values[k] for k, yes in enumerate(of_boundaries) if yes]
    columns = [values[k] for k, yes in enumerate(of_boundaries) if not yes]
    images = torch.cat([around.x.new_empty(n, 0), *columns], dim=1)
    if not blocks:
        none = around.x.new_empty(n, 0)
        return Measured(
            around.logits, none.long(), none.bool(), none, none[:, None], images
        )
    boundaries = torch.cat(blocks, dim=1)
    searched = around.searched or (by_distance and around.setup.at == "boundary")
    at = around.located("boundary" if searched else "input")
    found = around.pairs.by_point(at.found)
    # Where there is a slope, no curvature means that the network gave none.
    slope = around.pairs.by_point(at.gradient.flatten(1).norm(dim=1))
    probes = boundaries.isnan().any(dim=1) & found & (slope > 0)
    points = around.pairs.by_point(undefined(at, around.model, around.x))
    check_defined(probes | points)
    return Measured(
        logits=around.logits,
        classes=around.pairs.classes,
        # No curvature where the gradient vanishes: no boundary.
        found=found & boundaries.isfinite().all(dim=1),
        distances=around.pairs.by_point(at.distances),
        boundaries=boundaries,
        images=images,
    )


def _checked(signal: Signal, values: Tensor, n: int, n_classes: int) -> Tensor:
    expected = n, len(signal.columns(n_classes))
    if values.shape != expected:
        raise ValueError(
            f"signal {signal.name!r} must measure (n, n_columns) values, {expected}, "
            f"as its columns say; got {tuple(values.shape)}"
        )
    return values


def arranged_by_class(measured: Measured, n_classes: int) -> Tensor:
    """Give the boundaries a column a class; NaN where there is none.

    Parameters
    ----------
    measured : Measured
        Of n images.
    n_classes : int
        Number of columns of a block.

    Returns
    -------
    Tensor of shape (n, n_blocks, n_classes)
        Values by class.
    """
    values = measured.boundaries.where(measured.found[:, None], torch.nan)
    return by_class(values, measured.classes, n_classes)


def arranged_by_distance(measured: Measured, blanks: Tensor) -> Tensor:
    """Order the boundaries by their distance, without NaN.

    Positions past the last boundary found repeat it.

    Parameters
    ----------
    measured : Measured
        Of n images.
    blanks : Tensor of shape (n_blocks,)
        Values for images without any boundary.

    Returns
    -------
    Tensor of shape (n, n_blocks, k)
        The nearest first.
    """
    found, values = measured.found, measured.boundaries
    order = measured.distances.where(found, torch.inf).argsort(dim=1, stable=True)
    n_found = found.sum(dim=1, keepdim=True)
    position = torch.arange(order.shape[1], device=order.device)
    order = order.gather(1, torch.minimum(position, (n_found - 1).clamp(min=0)))
    values = values.gather(2, order[:, None].expand_as(values))
    none_found = (n_found == 0)[:, None].expand_as(values)
    return torch.where(none_found, blanks[:, None].to(values), values)
