"""Changes of clean images that nobody made to fool a network: light, focus, a tilt.

A guard meets them among clean images, at scales of its own that the noise of attacks
says nothing of; so it learns from some.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from curvdetect.estimators._probes import blurred, pixel_axes

__all__ = ["corrupted"]

#: The largest of each: how little contrast is left; how much light is added, in parts
#: of the range; how often an image is blurred; by how many degrees it is turned.
_CONTRAST, _LIGHT, _BLUR, _TURN = 0.25, 0.25, 2.0, 10.0


def corrupted(
    images: Tensor, bounds: tuple[float, float] | None, generator: torch.Generator
) -> Tensor:
    """Return images of which each has changed in one way, drawn at random.

    Parameters
    ----------
    images : Tensor of shape (n, *input_shape)
        Clean ones.
    bounds : (float, float) or None
        Of values; None for the extreme ones of all images.
    generator : torch.Generator
        Draws kinds and strengths, evenly from nothing to the largest.

    Returns
    -------
    Tensor of shape (n, *input_shape)
        With less contrast, lighter or darker, blurred or, if they have two axes of
        pixels, turned; within the bounds.
    """
    axes = pixel_axes(tuple(images.shape[1:]))
    low, high = bounds or (float(images.min()), float(images.max()))
    one_each = (len(images), *(1,) * (images.ndim - 1))
    strength = torch.rand(len(images), generator=generator).to(images)
    sign = torch.rand(len(images), generator=generator).to(images).sub(0.5).sign()
    s, signed = strength.reshape(one_each), (sign * strength).reshape(one_each)
    grey = images.flatten(1).mean(dim=1).reshape(one_each)
    once = blurred(images, axes)
    twice = once.lerp(blurred(once, axes), (_BLUR * s - 1).clamp(0, 1))
    kinds = [
        grey + (images - grey) * (1 - s * (1 - _CONTRAST)),
        images + signed * _LIGHT * (high - low),
        images.lerp(twice, (_BLUR * s).clamp(0, 1)),
    ]
    if len(axes) == 2:
        kinds.append(_turned(images, axes, sign * strength * math.radians(_TURN)))
    drawn = torch.randint(len(kinds), one_each, generator=generator)
    found = torch.stack(kinds).take_along_dim(drawn.expand(images.shape)[None], dim=0)
    return found[0].clamp(low, high)


def _turned(images: Tensor, axes: tuple[int, ...], angle: Tensor) -> Tensor:
    """Return images turned about their middle by an angle; the edge is repeated."""
    pixels = images.movedim(axes, (-2, -1))
    height, width = pixels.shape[-2:]
    flat = pixels.reshape(len(images), -1, height, width)
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # The grid's coordinates go from -1 to 1 along either side, however long it is.
    way = torch.stack(
        [
            torch.stack([cos, -sin * height / width, none], dim=1),
            torch.stack([sin * width / height, cos, none], dim=1),
        ],
        dim=1,
    )
    grid = affine_grid(way, list(flat.shape), align_corners=False)
    found = grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return found.reshape(pixels.shape).movedim((-2, -1), axes)
