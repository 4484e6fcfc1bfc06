"""Read images from files, for the command line: what cannot be read is named."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from curvdetect._base.extras import require

__all__ = ["Batch", "read_images", "read_picture"]

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
#: What a picture may be, whatever its name: not EPS, for which Pillow starts a program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_MODES = {1: "L", 3: "RGB"}


class Batch(NamedTuple):
    """Some images, and what was refused among them.

    Attributes
    ----------
    names : list of str
        File names relative to the folder, or positions in the array.
    X : ndarray of shape (n, *input_shape), float32
        Images in [0, 1].
    refused : dict of str to str
        Why, by name.
    """

    names: list[str]
    X: npt.NDArray[np.float32]
    refused: dict[str, str]


def read_images(
    source: str | Path,
    input_shape: tuple[int, int, int],
    *,
    resize: bool = False,
    batch_size: int = 256,
) -> Iterator[Batch]:
    """Read a folder of pictures, or an array file, a batch at a time.

    Grey pictures become colour and the other way round, as the network takes them;
    transparent ones are laid on white.

    Parameters
    ----------
    source : str or Path
        A folder (with subfolders), a picture, or a .npy or .npz file with an array of
        shape (n, *input_shape): floats in [0, 1], or bytes, which are divided by 255.
        Of several arrays in a .npz the one called "X" or "images" is taken.
    input_shape : (int, int, int)
        Channels, height and width.
    resize : bool, default=False
        Whether pictures of another size are resized (bilinearly, to cover the input,
        and cropped in the middle) instead of refused.
    batch_size : int, default=256
        Pictures held at a time.

    Yields
    ------
    Batch
        Images, names, and what was refused.

    Raises
    ------
    FileNotFoundError
        If `source` does not exist.
    ValueError
        If it holds nothing that could be an image, or an array of another shape.
    ImportError
        If Pillow is missing.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"images: there is no {source}")
    if source.suffix in (".npy", ".npz"):
        yield from _of_array(_array(source), input_shape, batch_size)
        return
    paths = _pictures(source)
    root = source if source.is_dir() else source.parent
    for start in range(0, len(paths), batch_size):
        names, images, refused = [], [], {}
        for path in paths[start : start + batch_size]:
            name = _as_text(path.relative_to(root))
            try:
                images.append(read_picture(path, input_shape, resize=resize))
                names.append(name)
            except (OSError, ValueError) as error:
                refused[name] = str(error)
        empty = np.empty((0, *input_shape), dtype=np.float32)
        yield Batch(names, np.stack(images) if images else empty, refused)


def read_picture(
    file: str | Path | BinaryIO,
    input_shape: tuple[int, int, int],
    *,
    resize: bool = False,
) -> npt.NDArray[np.float32]:
    """Read one picture.

    Parameters
    ----------
    file : str, Path or binary file
        A picture in one of the formats BMP, GIF, JPEG, PNG, TIFF and WebP.
    input_shape, resize
        As in :func:`read_images`.

    Returns
    -------
    ndarray of shape (*input_shape,), float32
        In [0, 1].

    Raises
    ------
    ValueError
        If it has another size, too many pixels, or more than 8 bits.
    OSError
        If it is broken, or no picture.
    ImportError
        If Pillow is missing.
    """
    pillow = require("PIL.Image", extra="vision")
    channels, height, width = input_shape
    try:
        with pillow.open(file, formats=_FORMATS) as opened:
            _check_picture(opened, None if resize else (width, height))
            picture = opened.convert("RGBA")
    # What Pillow's decoders make of broken pictures, besides OSError and ValueError.
    except (SyntaxError, NotImplementedError, pillow.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    white = pillow.new("RGBA", picture.size, "white")
    picture = pillow.alpha_composite(white, picture).convert(_MODES[channels])
    if picture.size != (width, height):
        picture = _fitted(pillow, picture, width, height)
    values: npt.NDArray[np.float32] = np.array(picture, dtype=np.float32)
    values /= 255
    return values.reshape(height, width, channels).transpose(2, 0, 1)


def _as_text(path: Path) -> str:
    """Return a name that every encoding can take: some hold bytes that are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _check_picture(opened: Any, size: tuple[int, int] | None) -> None:
    """Refuse what will not do before its pixels, which may be many, are decoded."""
    if opened.mode == "F" or opened.mode.startswith("I"):
        raise ValueError(
            f"its values have 16 or more bits (mode {opened.mode}), not 8: "
            "convert it, or give a .npy file"
        )
    if size is not None and opened.size != size:
        raise ValueError(
            f"it has {opened.size[0]} x {opened.size[1]} pixels, not {size[0]} x "
            f"{size[1]}"
        )


def _pictures(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    files = (path for path in source.rglob("*") if path.is_file())
    paths = sorted(path for path in files if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise ValueError(
            f"images must hold pictures ({', '.join(_SUFFIXES)}); {source} holds none"
        )
    return paths


def _fitted(pillow: Any, picture: Any, width: int, height: int) -> Any:
    """Shrink or enlarge a picture to cover the input, and cut out its middle."""
    factor = max(width / picture.size[0], height / picture.size[1])
    size = [max(round(factor * side), 1) for side in picture.size]
    picture = picture.resize(size, pillow.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _array(source: Path) -> npt.NDArray[Any]:
    try:
        if source.suffix == ".npy":
            return np.load(source, mmap_mode="r")  # refuses pickles
        with source.open("rb") as file, np.load(file) as arrays:
            names = arrays.files
            for name in ("X", "images", *names[: len(names) == 1]):
                if name in names:
                    return np.asarray(arrays[name])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"images: {source} cannot be read: {error}") from error
    raise ValueError(
        f'images: {source} must hold an array called "X" or "images"; it holds {names}'
    )


def _of_array(
    array: npt.NDArray[Any], input_shape: tuple[int, int, int], batch_size: int
) -> Iterator[Batch]:
    if array.shape[1:] != input_shape or not len(array):
        raise ValueError(
            f"images must have shape (n, {', '.join(map(str, input_shape))}); got "
            f"{array.shape}"
        )
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ValueError(
            f"images must be floats in [0, 1] or bytes; got an array of {array.dtype}"
        )
    for start in range(0, len(array), batch_size):
        X = array[start : start + batch_size].astype(np.float32)
        if array.dtype == np.uint8:
            X /= 255
        good = ((X >= 0) & (X <= 1)).all(axis=(1, 2, 3))  # NaN is neither
        names = [str(start + position) for position in np.flatnonzero(good)]
        refused = {
            str(start + position): "it has values outside [0, 1]"
            for position in np.flatnonzero(~good)
        }
        yield Batch(names, X[good], refused)
