"""Adversarial images that a user has: which are learned from, and which are tried."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect.attacks import Lesson
from curvdetect.attacks.curriculum import GIVEN
from curvdetect.network import TorchModel

__all__ = ["Given", "given_images"]

#: What the images are called in tables.
_NAME = "given images"
#: Distances held in memory at a time.
_AT_ONCE = 2**24


@dataclass(frozen=True)
class Given:
    """Adversarial images, each with the clean image that it is nearest to.

    An attack leaves an image near to what it was, so that one is taken for its source:
    what is made of a clean image that sets the threshold must not be learned from, or
    that image would be no new one.

    Attributes
    ----------
    images : Tensor of shape (n, *input_shape)
        Adversarial ones, whether they fool the network or not.
    near : ndarray of shape (n,), int64
        Position of the nearest clean image.
    """

    images: Tensor
    near: npt.NDArray[np.int64]

    def of(self, clean: npt.NDArray[np.int64]) -> Given:
        """Return the images that are nearest to some clean ones, by their positions."""
        kept = np.isin(self.near, clean)
        return Given(self.images[torch.from_numpy(kept)], self.near[kept])

    def lesson(self, clean: Tensor) -> Lesson:
        """Return an "attack" that exchanges a clean image for one made of it.

        Parameters
        ----------
        clean : Tensor of shape (m, *input_shape)
            All clean images, that `near` counts.
        """
        first = np.unique(self.near, return_index=True)[1]
        before, after = clean[self.near[first]], self.images[first]

        def exchanged(images: Tensor, labels: Tensor) -> Tensor:
            out = images.clone()
            known = before.to(images)  # in the precision of the network
            for row, x in enumerate(images):
                same = (known == x).flatten(1).all(dim=1).nonzero()
                if len(same):
                    out[row] = after[same[0, 0]].to(out)
            return out

        return Lesson(_NAME, GIVEN, math.nan, exchanged)


def given_images(model: TorchModel, adversarial: Any, clean: Tensor) -> Given:
    """Check adversarial images, and find the clean one that each is nearest to.

    Parameters
    ----------
    model : TorchModel
        The network.
    adversarial : array or Tensor of shape (n, *input_shape) or (n, d)
        Images.
    clean : Tensor of shape (m, *input_shape)
        Clean ones.

    Returns
    -------
    Given
        On the CPU.

    Raises
    ------
    ValueError
        If there are none, or they are not what images must be.
    """
    try:
        images = model.to_tensor(adversarial)
    except ValueError as error:
        raise ValueError(f"adversarial images: {error}") from error
    if not len(images):
        raise ValueError("adversarial must hold at least one image, or be None; got 0")
    images = images.cpu().to(clean.dtype).reshape(-1, *clean.shape[1:])
    near = torch.cat(list(_nearest(images.flatten(1), clean.flatten(1))))
    return Given(images, near.numpy())


def _nearest(images: Tensor, clean: Tensor) -> Iterator[Tensor]:
    for part in images.split(max(1, _AT_ONCE // len(clean))):
        yield torch.cdist(part, clean).argmin(dim=1)
