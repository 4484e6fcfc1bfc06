"""How a picture becomes an input: resized and cut as a network's library does it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from curvdetect._base.checks import check_choice
from curvdetect._base.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["INTERPOLATIONS", "Preparation", "check_preparation"]

Interpolation: TypeAlias = Literal[
    "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"
]
Crop: TypeAlias = Literal["center", "squash", "border"]
Rounding: TypeAlias = Literal["even", "down"]

#: As Pillow calls them, in lower case.
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
#: Of a picture that was resized: a file of 300 bytes can hold 60,000 pixels in a row.
_MOST_PIXELS = 2**26


@dataclass(frozen=True)
class Preparation:
    """How a picture of any size becomes an input of a network.

    It is resized, and its middle is cut out, to the pixel as timm, torchvision and
    transformers do it with pictures of Pillow. (Normalisation is the model's.)

    Parameters
    ----------
    size : (int, int)
        Height and width of the input, in pixels.
    resize : int or (int, int), optional
        The length of the shorter side, before the middle is cut out: the longer one
        keeps the proportions, rounded down. Or height and width, see `crop`. None:
        pictures are not resized.
    interpolation : str, default="bilinear"
        "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos"; all but
        "nearest" average over what becomes one pixel (antialias).
    crop : {"center", "squash", "border"}, default="center"
        What becomes of proportions where `resize` gives height and width. "center":
        they are kept, and the picture covers both; "squash": they are not, and it has
        both; "border": they are kept, it fits into both, and a border is added. The
        middle is cut out afterwards.
    fill : int or sequence of int, default=0
        Colour of what is added where a picture is smaller than `size`, in 0..255, one
        for each channel or one for all.
    rounding : {"even", "down"}, default="even"
        Where the middle begins if as many pixels cannot go on both sides: at the even
        number (timm, torchvision), or the smaller one (transformers).

    Raises
    ------
    ValueError
        If a parameter is not allowed.

    Examples
    --------
    >>> from PIL import Image
    >>> from curvdetect.network import Preparation
    >>> prepare = Preparation(size=(224, 224), resize=256)
    >>> prepare.apply(Image.new("RGB", (640, 480))).size
    (224, 224)
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    crop: Crop = "center"
    fill: int | tuple[int, ...] = 0
    rounding: Rounding = "even"

    def __post_init__(self) -> None:
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("crop", self.crop, get_args(Crop))
        check_choice("rounding", self.rounding, get_args(Rounding))
        vars(self)["size"] = _pair("size", self.size)  # frozen: not by assignment
        resize: Any = self.resize
        if isinstance(resize, Integral):
            vars(self)["resize"] = int(resize)
        elif resize is not None:
            vars(self)["resize"] = _pair("resize", resize)
        if self.crop != "center" and not isinstance(self.resize, tuple):
            raise ValueError(
                f'crop="{self.crop}" needs resize=(height, width); got {resize!r}'
            )
        if isinstance(self.resize, int) and not 1 <= self.resize <= _MOST_PIXELS:
            raise ValueError(
                f"resize must be positive, and at most {_MOST_PIXELS}; got {resize!r}"
            )
        vars(self)["fill"] = _colour(self.fill)

    def apply(self, picture: Image, *, max_pixels: int = _MOST_PIXELS) -> Image:
        """Prepare a picture.

        Parameters
        ----------
        picture : PIL.Image.Image
            Of any size, in the mode that the network takes ("RGB" or "L").
        max_pixels : int, default=67108864
            Of the picture when it was resized, before its middle is cut out.

        Returns
        -------
        PIL.Image.Image
            Of `size`, in the same mode.

        Raises
        ------
        ValueError
            If it is so long and thin that it would have to be resized to more than
            `max_pixels`.
        """
        pillow = require("PIL.Image", extra="vision")
        height, width = self._resized(picture.height, picture.width)
        if (width, height) != picture.size:
            if width * height > max_pixels:
                raise ValueError(
                    f"it has {picture.width} x {picture.height} pixels, and would have "
                    f"{width} x {height} before its middle is cut out: too long for "
                    "its width"
                )
            how = pillow.Resampling[self.interpolation.upper()]
            picture = picture.resize((width, height), how)
        return self._middle(pillow, picture)

    def for_size(self, height: int, width: int) -> Preparation:
        """Return the same for inputs of another size, resized in proportion.

        Parameters
        ----------
        height, width : int
            Of the input, in pixels.

        Returns
        -------
        Preparation
            With `size` and `resize` changed.
        """
        shares = height / self.size[0], width / self.size[1]
        resize = self.resize
        if isinstance(resize, int):
            resize = math.floor(resize * max(shares))
        elif resize is not None:
            resize = (
                math.floor(resize[0] * shares[0]),
                math.floor(resize[1] * shares[1]),
            )
        return replace(self, size=(height, width), resize=resize)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of a picture before it is cut."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, int):
            short, long = sorted((height, width))
            other = int(self.resize * long / short)
            portrait = width <= height
            return (other, self.resize) if portrait else (self.resize, other)
        if self.crop == "squash":
            return self.resize
        shares = height / self.resize[0], width / self.resize[1]
        share = max(shares) if self.crop == "border" else min(shares)
        return max(round(height / share), 1), max(round(width / share), 1)

    def _middle(self, pillow: Any, picture: Image) -> Image:
        """Cut the middle out, on a ground of `fill` where the picture is smaller."""
        height, width = self.size
        left = self._start(picture.width, width)
        top = self._start(picture.height, height)
        if picture.size == (width, height):
            return picture
        if left >= 0 and top >= 0:
            return picture.crop((left, top, left + width, top + height))
        ground = pillow.new(picture.mode, (width, height), self._fill_of(picture))
        ground.paste(picture, (-left, -top))
        return ground

    def _start(self, length: int, wanted: int) -> int:
        """Return where the middle begins: negative where something is to be added."""
        if length < wanted:
            return -((wanted - length) // 2)
        if self.rounding == "even":
            return round((length - wanted) / 2)
        return (length - wanted) // 2

    def _fill_of(self, picture: Image) -> Any:
        n_channels = len(picture.getbands())
        if isinstance(self.fill, int):
            return self.fill if n_channels == 1 else (self.fill,) * n_channels
        if len(self.fill) != n_channels:
            raise ValueError(
                f"fill must be one number, or one for each of the {n_channels} "
                f"channels of a picture; got {self.fill}"
            )
        return self.fill[0] if n_channels == 1 else self.fill


def check_preparation(
    preparation: Preparation | None, input_shape: tuple[int, ...] | None
) -> Preparation | None:
    """Refuse what prepares pictures for other inputs than the network takes."""
    if preparation is None:
        return None
    if not isinstance(preparation, Preparation):
        raise ValueError(
            "preparation must be a Preparation or None; got "
            f"{type(preparation).__name__}"
        )
    fits = input_shape is None or preparation.size in (input_shape[1:], input_shape[:2])
    if not fits:
        raise ValueError(
            "preparation must give pictures of the size of the input, "
            f"input_shape={input_shape}; got size={preparation.size}"
        )
    return preparation


def _pair(name: str, values: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (int(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    if not 1 <= min(height, width) <= max(height, width) <= _MOST_PIXELS:
        raise ValueError(
            f"{name} must be (height, width), two positive integers, each at most "
            f"{_MOST_PIXELS}; got {values!r}"
        )
    return height, width


def _colour(fill: int | Sequence[int]) -> int | tuple[int, ...]:
    try:
        each: Any = (fill,) if isinstance(fill, Integral) else fill
        values = tuple(int(value) for value in each)
    except (TypeError, ValueError, OverflowError):
        values = ()
    if not values or not all(0 <= value <= 255 for value in values):
        raise ValueError(
            f"fill must be a number in 0..255, or one for each channel; got {fill!r}"
        )
    return values[0] if len(values) == 1 else values
