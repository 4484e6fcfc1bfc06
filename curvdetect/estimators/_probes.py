"""Neighbours of an image at which a network should say the same: small changes of it.

What an attack adds is fitted to the pixels where it was made. Moved by a pixel,
mirrored, blurred or in two grey levels, most of it is gone, and so it is at a small
step in a random direction; what the image shows is still there.

Every function takes and returns a batch (n, *input_shape). `axes` are those along which
neighbouring values are neighbours in the picture: :func:`pixel_axes`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["blurred", "in_two_levels", "mirrored", "moved", "pixel_axes"]

#: Fewer values along an axis are channels.
_CHANNELS = 4


def pixel_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of a batch of images along which pixels lie: two, or one.

    Parameters
    ----------
    shape : tuple of int
        Of one image: (C, H, W), (H, W, C), (H, W), or any other.

    Returns
    -------
    tuple of int
        The last two of more than four values, counted in the batch. A vector has one;
        of pictures laid out in a row it still holds pixels beside each other.

    Examples
    --------
    >>> pixel_axes((3, 32, 32)), pixel_axes((32, 32, 3)), pixel_axes((784, 1))
    ((2, 3), (1, 2), (1,))
    """
    every = range(1, len(shape) + 1)
    long = [axis for axis in every if shape[axis - 1] > _CHANNELS]
    return tuple((long or list(every))[-2:])


def moved(x: Tensor, axes: tuple[int, ...], by: int) -> Tensor:
    """Return images moved along each axis; the edge is repeated.

    Parameters
    ----------
    x : Tensor of shape (n, *input_shape)
        Images.
    axes : tuple of int
        Of pixels.
    by : int
        How many pixels.

    Returns
    -------
    Tensor of shape (n, *input_shape)
        Others of the same size.

    Examples
    --------
    >>> moved(torch.tensor([[1.0, 2.0, 3.0]]), (1,), 1)
    tensor([[1., 1., 2.]])
    """
    for axis in axes:
        n = x.shape[axis]
        gone = min(abs(by), n)  # parts, not places: a program moves to any device
        edge = [x.narrow(axis, 0 if by > 0 else n - 1, 1)] * gone
        kept = x.narrow(axis, 0 if by > 0 else gone, n - gone)
        x = torch.cat([*edge, kept] if by > 0 else [kept, *edge], dim=axis)
    return x


def mirrored(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return images with the last axis of pixels turned round.

    Parameters
    ----------
    x : Tensor of shape (n, *input_shape)
        Images.
    axes : tuple of int
        Of pixels.

    Returns
    -------
    Tensor of shape (n, *input_shape)
        Left and right exchanged, of pictures.
    """
    return x.flip(axes[-1])


def blurred(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return images with a quarter of either neighbour in each pixel, along each axis.

    Parameters
    ----------
    x : Tensor of shape (n, *input_shape)
        Images.
    axes : tuple of int
        Of pixels.

    Returns
    -------
    Tensor of shape (n, *input_shape)
        Smoother ones, with the same range.

    Examples
    --------
    >>> blurred(torch.tensor([[0.0, 4.0, 0.0, 0.0]]), (1,))
    tensor([[1., 2., 1., 0.]])
    """
    for axis in axes:
        x = (2 * x + moved(x, (axis,), 1) + moved(x, (axis,), -1)) / 4
    return x


def in_two_levels(x: Tensor) -> Tensor:
    """Return images of two values each: their own darkest and lightest.

    Not of black and white: a pale image would be all black, and look like an attack.

    Parameters
    ----------
    x : Tensor of shape (n, *input_shape)
        Images.

    Returns
    -------
    Tensor of shape (n, *input_shape)
        Each value is one of the two, the nearer one. Without a gradient.

    Examples
    --------
    >>> in_two_levels(torch.tensor([[0.1, 0.4, 0.6]]))
    tensor([[0.1000, 0.6000, 0.6000]])
    """
    x, values = x.detach(), tuple(range(1, x.ndim))
    low, high = x.amin(values, keepdim=True), x.amax(values, keepdim=True)
    return torch.where(2 * x > low + high, high, low)
