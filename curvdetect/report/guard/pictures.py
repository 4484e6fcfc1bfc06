"""Images as PNG within the page, and perturbations that can be seen."""

from __future__ import annotations

import base64
import io
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvdetect._base.extras import require

__all__ = ["LARGEST", "Picture", "enlarged", "is_picture", "picture"]

#: Pixels a side: what is larger is cut to its middle, where nothing is averaged away.
LARGEST = 128


class Picture(NamedTuple):
    """A picture for a template.

    Attributes
    ----------
    source : str
        A ``data:`` URI.
    alt : str
        What there is to see.
    width, height : int
        In pixels of the image.
    """

    source: str
    alt: str
    width: int
    height: int


def is_picture(shape: tuple[int, ...]) -> bool:
    """Say whether inputs of a shape can be shown: grey or in colour."""
    return len(shape) == 3 and shape[0] in (1, 3)


def picture(image: npt.NDArray[Any], alt: str) -> Picture:
    """Make an image a picture for the page.

    Parameters
    ----------
    image : ndarray of shape (1 or 3, height, width)
        In [0, 1].
    alt : str
        What there is to see.

    Returns
    -------
    Picture
        The middle of it where it is larger than `LARGEST` pixels.
    """
    pillow = require("PIL.Image", extra="report")
    values = np.round(255 * np.clip(_middle(image), 0, 1)).astype(np.uint8)
    shown = pillow.fromarray(
        values[0] if len(values) == 1 else values.transpose(1, 2, 0)
    )
    written = io.BytesIO()
    shown.save(written, "PNG", optimize=True)
    encoded = base64.b64encode(written.getvalue()).decode()
    return Picture(f"data:image/png;base64,{encoded}", alt, *shown.size)


def _middle(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    starts = [max(0, (side - LARGEST) // 2) for side in image.shape[1:]]
    rows, columns = (slice(start, start + LARGEST) for start in starts)
    return image[:, rows, columns]


def enlarged(change: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """Make a perturbation visible: times a factor, on middle grey.

    Parameters
    ----------
    change : ndarray of shape (channels, height, width)
        Image after less image before, in input units.

    Returns
    -------
    image : ndarray of shape (channels, height, width)
        0.5 where nothing was changed; in [0, 1].
    factor : float
        The largest of two digits for which nothing is cut off.
    """
    largest = float(np.abs(change).max())
    if not largest:
        return np.full_like(change, 0.5), 1.0
    most = 0.5 / largest
    digit = 10.0 ** (math.floor(math.log10(most)) - 1)
    factor = math.floor(most / digit * (1 + 1e-6)) * digit
    return 0.5 + factor * change, factor
