"""How short what an attacker found is, where it succeeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from curvdetect._base.rows import per_row
from curvdetect.attacks import MinimalNormAttack
from curvdetect.estimators._cascade import decided
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.evasion.minimal_evasion import MinimalEvasion
from curvdetect.geometry import RegionMargin, find_joint_perturbation
from curvdetect.network import TorchModel

__all__ = [
    "FURTHEST",
    "Succeeds",
    "further_on",
    "lengths",
    "on_the_network",
    "unflagged",
]

#: How far on, as multiples of an image's own smallest perturbation.
FURTHEST = 12.0
_FACTORS = np.geomspace(1.02, FURTHEST, 60)
#: Says which of some images, with their labels, are what an attacker wants.
Succeeds: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def unflagged(
    detector: LearnedDetector, threshold: float, images: Tensor, labels: Tensor
) -> Tensor:
    """Say which images fool the network and are not flagged.

    Parameters
    ----------
    detector : LearnedDetector
        Fitted.
    threshold : float
        Of its score; what is above it is flagged.
    images : Tensor of shape (n, *input_shape)
        Images.
    labels : Tensor of shape (n,)
        Their labels.

    Returns
    -------
    Tensor of shape (n,), bool
        On the device of the images.
    """
    found = decided(detector._cascade(), images, 0)
    wrong = found.logits.argmax(dim=1) != labels.cpu()
    return (wrong & (found.score <= threshold)).to(images.device)


def lengths(x: Tensor, found: Tensor, succeeds: Succeeds, label: Tensor) -> Tensor:
    """Return the L2 norms of what succeeds, (n,); infinity elsewhere."""
    norms = (found - x).flatten(1).norm(dim=1)
    return norms.where(succeeds(found, label), torch.inf)


def on_the_network(model: TorchModel, x: Tensor, label: Tensor, unit: float) -> Tensor:
    """Return the smallest norms that fool the network, by the short way alone.

    Parameters
    ----------
    model : TorchModel
        The network.
    x : Tensor of shape (n, *input_shape)
        Images, on its device.
    label : Tensor of shape (n,)
        Their labels.
    unit : float
        Where the search begins: about as long as what is sought.

    Returns
    -------
    Tensor of shape (n,)
        L2 norms; infinity where nothing was found.
    """
    with model.evaluating():
        right = RegionMargin(model.logits, label)
        return find_joint_perturbation(
            lambda z: -right(z)[:, None], x, radius=unit, bounds=model.bounds
        ).norms


def further_on(
    model: TorchModel, x: Tensor, label: Tensor, points: Tensor, succeeds: Succeeds
) -> MinimalEvasion:
    """Find where the smallest perturbation leads to success, farther on.

    Parameters
    ----------
    model : TorchModel
        The network.
    x, points : Tensor of shape (n, *input_shape)
        Images, and for each the nearest point where the network changes its mind.
    label : Tensor of shape (n,)
        Labels of the images.
    succeeds : callable
        What counts.

    Returns
    -------
    MinimalEvasion
        The shortest of 60 lengths, up to `FURTHEST` times the way to the point.
    """
    best, norms = x, x.new_full((len(x),), torch.inf)
    for factor in _FACTORS:
        ahead = MinimalNormAttack(model, factor=float(factor)).along(x, points)
        found = lengths(x, ahead, succeeds, label)
        best = ahead.where(per_row(found < norms, x), best)
        norms = norms.minimum(found)
    return MinimalEvasion(best, norms)
