"""Read images from files, for the command line: what cannot be read is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from curvdetect._base.extras import require
from curvdetect._base.messages import one_line
from curvdetect._base.stand_ins import stand_in
from curvdetect.network.preparation import Preparation, check_preparation

__all__ = ["Batch", "read_images", "read_picture"]

_SUFFIXES = (
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)
#: What a picture may be, whatever its name: not EPS, for which Pillow starts a program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_MODES = {1: "L", 3: "RGB"}
#: Modes without transparency, unless the file names a colour for it.
_OPAQUE = ("1", "L", "RGB", "CMYK")
#: Tags of TIFF and EXIF, and what Pillow calls the turns that undo an orientation.
_BITS_PER_SAMPLE, _ORIENTATION = 258, 274
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


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
    skipped : dict of str to str
        What else is in the folder, and why it is not read: files with other suffixes,
        links that lead nowhere or round. All of it is in the first batch.
    """

    names: list[str]
    X: npt.NDArray[np.float32]
    refused: dict[str, str]
    skipped: dict[str, str]


def read_images(
    source: str | Path,
    input_shape: tuple[int, ...],
    *,
    resize: bool = False,
    preparation: Preparation | None = None,
    batch_size: int = 256,
) -> Iterator[Batch]:
    """Read a folder of pictures, or an array file, a batch at a time.

    Grey pictures become colour and the other way round, as the network takes them;
    transparent ones are laid on white; CMYK becomes RGB by Pillow's formula, without
    the profile of a printer; all are turned as their EXIF data say, as they are shown
    elsewhere. Those with more than 8 bits a value or more than one frame are refused.

    Parameters
    ----------
    source : str or Path
        A folder (with subfolders, also linked ones), a picture, or a .npy or .npz file
        with an array of shape (n, *input_shape): floats in [0, 1], or bytes, which are
        divided by 255. Of several arrays in a .npz the one called "X" or "images" is
        taken.
    input_shape : (int, int, int)
        Channels, height and width; for arrays, whatever the network takes.
    resize : bool, default=False
        Whether pictures of another size are resized (bilinearly, to cover the input,
        and cropped in the middle) instead of refused.
    preparation : Preparation, optional
        How pictures of any size become inputs, such as that of a
        :class:`~curvdetect.TorchModel`; with it, `resize` says nothing. It is for
        pictures: arrays are inputs.
    batch_size : int, default=256
        Pictures held at a time.

    Yields
    ------
    Batch
        Images, names, what was refused, and what was skipped.

    Raises
    ------
    FileNotFoundError
        If `source` does not exist.
    ValueError
        If it holds nothing that could be an image, or an array of another shape; or if
        the network takes no pictures.
    ImportError
        If Pillow is missing.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"images: there is no {source}")
    if source.suffix.lower() in (".npy", ".npz"):
        yield from _of_array(_array(source), input_shape, batch_size)
        return
    _check_takes_pictures(input_shape, source)
    paths, skipped = _pictures(source)
    root = source if source.is_dir() else source.parent
    for start in range(0, len(paths), batch_size):
        names, images, refused = [], [], {}
        for path in paths[start : start + batch_size]:
            name = _as_text(path.relative_to(root))
            try:
                image = read_picture(
                    path, input_shape, resize=resize, preparation=preparation
                )
                images.append(image)
                names.append(name)
            except (OSError, ValueError) as error:
                what = stand_in(path)
                refused[name] = f"it is {what}" if what else str(error)
        empty = np.empty((0, *input_shape), dtype=np.float32)
        X = np.stack(images) if images else empty
        yield Batch(names, X, refused, {} if start else skipped)


def read_picture(
    file: str | Path | BinaryIO,
    input_shape: tuple[int, ...],
    *,
    resize: bool = False,
    preparation: Preparation | None = None,
    max_pixels: int | None = None,
) -> npt.NDArray[np.float32]:
    """Read one picture.

    Parameters
    ----------
    file : str, Path or binary file
        A picture in one of the formats BMP, GIF, JPEG, PNG, TIFF and WebP.
    input_shape, resize, preparation
        As in :func:`read_images`.
    max_pixels : int, optional
        Of the picture, as its header says before anything is decoded, and once more
        when it was resized. By default, what Pillow and
        :class:`~curvdetect.network.Preparation` allow.

    Returns
    -------
    ndarray of shape (*input_shape,), float32
        In [0, 1].

    Raises
    ------
    ValueError
        If it has another size, too many pixels, more than 8 bits, or several frames;
        or if the network takes no pictures.
    OSError
        If it is broken, or no picture.
    ImportError
        If Pillow is missing.
    """
    pillow = require("PIL.Image", extra="vision")
    _check_takes_pictures(input_shape, file)
    check_preparation(preparation, input_shape)
    channels, height, width = input_shape
    strict = preparation is None and not resize
    try:
        with pillow.open(file, formats=_FORMATS) as opened:
            _check_pixels(opened.size, max_pixels)
            _check_picture(opened, (width, height) if strict else None)
            picture = _on_white(pillow, opened).convert(_MODES[channels])
            turn = _TURNS.get(_orientation(opened))
    # What Pillow's decoders make of broken pictures, besides OSError and ValueError.
    except (SyntaxError, NotImplementedError, pillow.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    if turn:
        picture = picture.transpose(pillow.Transpose[turn])
    if strict:
        _check_size(picture.size, (width, height))
    if preparation is None:
        covers = (height, width)
        preparation = Preparation(size=covers, resize=covers, rounding="down")
    allowed = {} if max_pixels is None else {"max_pixels": max_pixels}
    picture = preparation.apply(picture, **allowed)
    values: npt.NDArray[np.float32] = np.array(picture, dtype=np.float32)
    values /= 255
    return values.reshape(height, width, channels).transpose(2, 0, 1)


def _check_takes_pictures(input_shape: tuple[int, ...], source: object) -> None:
    if len(input_shape) != 3 or input_shape[0] not in _MODES:
        raise ValueError(
            "images must be in a .npy or .npz file for a network that takes no "
            f"pictures, (1 or 3, height, width), but {input_shape}; got {source}"
        )


def _on_white(pillow: Any, opened: Any) -> Any:
    """Lay a picture on white where it is transparent: photographs need no copies."""
    if opened.mode in _OPAQUE and "transparency" not in opened.info:
        return opened
    picture = opened.convert("RGBA")
    white = pillow.new("RGBA", picture.size, "white")
    return pillow.alpha_composite(white, picture)


def _as_text(path: Path) -> str:
    """Return a name that every encoding can take: some hold bytes that are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _check_pixels(size: tuple[int, int], max_pixels: int | None) -> None:
    if max_pixels is not None and size[0] * size[1] > max_pixels:
        raise ValueError(
            f"it has {size[0]} x {size[1]} pixels, more than the {max_pixels} allowed"
        )


def _check_picture(opened: Any, size: tuple[int, int] | None) -> None:
    """Refuse what will not do before its pixels, which may be many, are decoded."""
    if _is_deep(opened):
        raise ValueError(
            f"its values have 16 or more bits (mode {_raw_mode(opened)}), not 8: "
            "convert it, or give a .npy file"
        )
    if size is not None and opened.size != size[::-1]:  # which a turn may mend
        _check_size(opened.size, size)
    n_frames = _n_frames(opened)
    if n_frames > 1:
        raise ValueError(f"it has {n_frames} frames, not one: give each in a file")


def _check_size(found: tuple[int, int], size: tuple[int, int]) -> None:
    if found != size:
        raise ValueError(
            f"it has {found[0]} x {found[1]} pixels, not {size[0]} x {size[1]}"
        )


def _n_frames(opened: Any) -> int:
    if opened.format == "MPO":  # a JPEG with previews besides
        return 1
    try:
        return int(getattr(opened, "n_frames", 1))
    except Exception as error:  # whatever broken data make of Pillow's reader
        raise ValueError(f"its frames cannot be counted: {error!r}") from error


def _is_deep(opened: Any) -> bool:
    """Say whether there are more than 8 bits, of which Pillow would keep the upper."""
    tags = getattr(opened, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, ())
    return (
        opened.mode == "F"
        or opened.mode.startswith("I")
        or ";16" in _raw_mode(opened)
        or max(bits if isinstance(bits, tuple) else (bits,), default=8) > 8
    )


def _raw_mode(opened: Any) -> str:
    """Return what the values in the file are, such as "RGB;16B"."""
    for *_, arguments in getattr(opened, "tile", ()):
        raw = arguments if isinstance(arguments, str) else next(iter(arguments), "")
        if isinstance(raw, str):
            return raw
    return str(opened.mode)


def _orientation(opened: Any) -> int:
    """Return how a picture has to be turned that was decoded, by EXIF's numbers."""
    if opened.format == "TIFF":  # Pillow has turned it
        return 1
    try:
        return int(opened.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever broken data make of Pillow's reader: shown as it is
        return 1


def _pictures(source: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the pictures of a folder, in order, and what else there is."""
    if not source.is_dir():
        return [source], {}
    paths: list[Path] = []
    skipped: dict[str, str] = {}
    for path, why_not in _files(source):
        if not why_not and path.suffix.lower() in _SUFFIXES:
            paths.append(path)
        else:
            reason = why_not or "its name does not end as those of pictures do"
            skipped[_as_text(path.relative_to(source))] = reason
    if not paths:
        raise ValueError(
            f"images must hold pictures ({', '.join(_SUFFIXES)}); {source} holds none"
        )
    return sorted(paths), skipped


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Find all files, through links too, with the reason if one cannot be read."""
    above = (*above, folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path, ""
        elif not path.is_dir():
            what = "a link that leads nowhere" if path.is_symlink() else "no file"
            yield path, f"it is {what}"
        elif path.resolve() in above:
            yield path, "it is a link to a folder that it lies in"
        elif not os.access(path, os.R_OK | os.X_OK):
            yield path, "it is a folder that may not be read"
        else:
            yield from _files(path, above)


def _array(source: Path) -> npt.NDArray[Any]:
    if reason := stand_in(source):
        raise ValueError(f"images: {source} is {reason}")
    try:
        if source.suffix.lower() == ".npy":
            return np.load(source, mmap_mode="r")  # refuses pickles
        with source.open("rb") as file, np.load(file) as arrays:
            names = arrays.files
            known = [name for name in ("X", "images") if name in names] or names
            if len(known) == 1:
                return np.asarray(arrays[known[0]])
    except Exception as error:  # whatever broken data make of NumPy's reader
        said = one_line(error)
        raise ValueError(f"images: {source} cannot be read: {said}") from error
    raise ValueError(
        f'images: {source} must hold an array called "X" or "images", and not both; it '
        f"holds {names}"
    )


def _of_array(
    array: npt.NDArray[Any], input_shape: tuple[int, ...], batch_size: int
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
        good = ((X >= 0) & (X <= 1)).all(axis=tuple(range(1, X.ndim)))  # NaN is neither
        names = [str(start + position) for position in np.flatnonzero(good)]
        refused = {
            str(start + position): "it has values outside [0, 1]"
            for position in np.flatnonzero(~good)
        }
        yield Batch(names, X[good], refused, {})
