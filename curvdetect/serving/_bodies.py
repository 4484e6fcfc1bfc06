"""Images from the bytes of a request: pictures and arrays, measured before decoded."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvdetect._base.messages import one_line
from curvdetect.network import Preparation
from curvdetect.storage import read_picture

__all__ = ["Part", "UnusableError", "decoded"]

Images = npt.NDArray[np.float32]

_NPY = b"\x93NUMPY"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class UnusableError(ValueError):
    """A body that is no image: `status` is what HTTP calls it."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class Part(NamedTuple):
    """Some bytes of a request.

    Attributes
    ----------
    name : str
        What messages call it.
    content : bytes
        A picture, a .npy file, or JSON.
    is_json : bool
        Whether it is JSON.
    """

    name: str
    content: bytes
    is_json: bool = False


def decoded(
    parts: list[Part],
    input_shape: tuple[int, ...],
    *,
    preparation: Preparation | None,
    resize: bool,
    max_pixels: int,
    max_images: int,
) -> Images:
    """Return the images of all parts, in order.

    Parameters
    ----------
    parts : list of Part
        One or more.
    input_shape : tuple of int
        Of an image.
    preparation, resize, max_pixels
        As in :func:`curvdetect.storage.read_picture`.
    max_images : int
        Of all parts together.

    Returns
    -------
    ndarray of shape (n, *input_shape), float32
        In [0, 1].

    Raises
    ------
    UnusableError
        If a part is not what it must be.
    """
    found: list[Images] = []
    left = max_images
    for part in parts:
        try:
            if part.is_json:
                images = _of_json(part.content, input_shape, left)
            elif part.content.startswith(_NPY):
                images = _of_npy(part.content, input_shape, left)
            else:
                images = _of_picture(
                    part.content, input_shape, preparation, resize, max_pixels
                )
        except UnusableError as error:
            raise UnusableError(f"{part.name}: {error}", error.status) from error
        found.append(images)
        left -= len(images)
        if left < 0:
            raise _too_many(max_images)
    return np.concatenate(found)


def _of_picture(
    content: bytes,
    input_shape: tuple[int, ...],
    preparation: Preparation | None,
    resize: bool,
    max_pixels: int,
) -> Images:
    if not content:
        raise UnusableError("it is empty")
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise UnusableError(
            "it must be an array (.npy or JSON), because the network takes no pictures "
            f"but {input_shape}"
        )
    try:
        image = read_picture(
            io.BytesIO(content),
            input_shape,
            resize=resize,
            preparation=preparation,
            max_pixels=max_pixels,
        )
    except (ValueError, OSError) as error:
        said = one_line(error)
        if "cannot identify image file" in said:  # and where it lies in memory
            said = "it is neither a picture that can be read nor a .npy file"
        raise UnusableError(said) from error
    return image[None]


def _of_npy(content: bytes, input_shape: tuple[int, ...], left: int) -> Images:
    """Read an array whose header says that it is one that is wanted."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"its version {version} is not 1 or 2")
        shape, _, dtype = _HEADERS[version](file)
        _check_shape(shape, input_shape, left)
        if dtype != np.uint8 and dtype.kind != "f":
            raise UnusableError(
                "its values must be floats in [0, 1] or bytes (uint8); it has the type "
                f"{dtype}"
            )
        n_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        n_there = len(content) - file.tell()
        if n_there != n_bytes:
            raise ValueError(f"it has {n_there} bytes of values, not {n_bytes}")
        file.seek(0)
        array = np.load(file, allow_pickle=False)
    except UnusableError:
        raise
    except Exception as error:  # whatever broken data make of NumPy's reader
        said = one_line(error)
        raise UnusableError(f"it is no .npy file: {said}", 400) from error
    images = array.astype(np.float32)
    if array.dtype == np.uint8:
        images /= 255
    return _checked(images, input_shape)


def _of_json(content: bytes, input_shape: tuple[int, ...], left: int) -> Images:
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"it is no JSON: {one_line(error)}", 400) from error
    if isinstance(value, dict):
        if set(value) != {"images"}:
            raise UnusableError(
                'an object must have one key, "images"; it has '
                f"{', '.join(map(repr, sorted(value)[:5])) or 'none'}"
            )
        value = value["images"]
    if not isinstance(value, list):
        raise UnusableError(
            'it must be nested lists of numbers, or {"images": nested lists}; it is a '
            f"{type(value).__name__}"
        )
    try:
        # A type is given: NumPy would make room for the longest text in each place.
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnusableError(
            f"it must be nested lists of numbers, of equal length: {one_line(error)}"
        ) from error
    _check_shape(array.shape, input_shape, left)
    return _checked(array.astype(np.float32), input_shape)


def _check_shape(
    shape: tuple[int, ...], input_shape: tuple[int, ...], left: int
) -> None:
    """Refuse an array that is neither an image nor several, or too many."""
    if shape == input_shape:
        return
    if shape[1:] != input_shape or shape[0] < 1:
        expected = ", ".join(map(str, input_shape))
        raise UnusableError(
            f"an array must have shape ({expected}) or (n, {expected}); it has {shape}"
        )
    if shape[0] > left:
        raise _too_many(left)


def _checked(images: Images, input_shape: tuple[int, ...]) -> Images:
    images = images.reshape(-1, *input_shape)
    if not ((images >= 0) & (images <= 1)).all():  # NaN is neither
        raise UnusableError("values must be in [0, 1] (or bytes); some are not")
    return images


def _too_many(most: int) -> UnusableError:
    return UnusableError(
        f"there are more images than the {most} that a request may still have", 413
    )
