"""Read the true labels of images from files, or from the folders they lie in."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["read_labels"]

_ARRAYS = (".npy", ".npz")
#: What labels are called in a .npz file.
_NAMES = ("y", "labels")
#: Of a table.
_COLUMNS = ("image", "label")

Labels = npt.NDArray[np.int64]


def read_labels(
    file: str | Path | None,
    *,
    images: str | Path,
    names: Sequence[str],
    n_all: int,
    n_classes: int,
    class_names: Sequence[str] | None,
) -> tuple[Labels | None, str]:
    """Read the labels of images that were read, and say where they come from.

    Parameters
    ----------
    file : str, Path or None
        A table (.csv) with the columns "image" and "label"; or an array (.npy, or .npz
        with "y" or "labels") for images that are an array. None looks at the images:
        the "y" of a .npz file, and the folders that pictures lie in.
    images : str or Path
        Where the images come from; see :func:`~curvdetect.storage.read_images`.
    names : sequence of str
        Theirs, of those that were not refused.
    n_all : int
        How many images there were, with those that were refused.
    n_classes : int
        Of the network.
    class_names : sequence of str or None
        Their names, if there are any: labels and folders may have those.

    Returns
    -------
    labels : ndarray of shape (n,), int64, or None
        None where nothing was given, and nothing was found.
    source : str
        Where they come from, or why there are none.

    Raises
    ------
    ValueError
        If `file` does not give a class of the network to each image.
    FileNotFoundError
        If it does not exist.
    """
    known = _Classes(n_classes, class_names)
    images = Path(images)
    of_array = images.suffix.lower() in _ARRAYS
    if file is None:
        return _found(images, of_array, names, n_all, known)
    file = Path(file)
    if not file.exists():
        raise FileNotFoundError(f"labels: there is no {file}")
    if file.suffix.lower() == ".csv":
        return _of_table(file, names, known), file.name
    if file.suffix.lower() in _ARRAYS and of_array:
        found = _array(file)
        if found is None:
            raise ValueError(f'labels: {file} must hold an array "y" or "labels"')
        return _of_array(found, file, names, n_all, known), file.name
    raise ValueError(
        'labels must be a .csv file with the columns "image" and "label", or, for '
        f"images in a .npy or .npz file, one of these; got {file}"
    )


class _Classes:
    """Which labels a network has, by number and by name."""

    def __init__(self, n: int, names: Sequence[str] | None) -> None:
        self.n = n
        self._numbers = {} if names is None else {x: k for k, x in enumerate(names)}

    def number(self, text: str) -> int | None:
        """Return the class that a text names; None if it names none."""
        if text in self._numbers:
            return self._numbers[text]
        if text.isascii() and text.isdecimal() and int(text) < self.n:
            return int(text)
        return None

    def __str__(self) -> str:
        names = ", or one of its names" if self._numbers else ""
        return f"a class of the network, 0 to {self.n - 1}{names}"


def _found(
    images: Path, of_array: bool, names: Sequence[str], n_all: int, known: _Classes
) -> tuple[Labels | None, str]:
    """Look for labels in what holds the images."""
    if of_array:
        found = _array(images) if images.suffix.lower() == ".npz" else None
        if found is None:
            return None, "none were given, and the file of the images holds none"
        labels = _of_array(found, images, names, n_all, known)
        return labels, f"those in {images.name}"
    folders = [PurePath(name).parent.name for name in names]
    numbers = [known.number(folder) for folder in folders]
    strange = {
        folder for folder, k in zip(folders, numbers, strict=True) if k is None
    } - {""}
    if strange or not all(folders):
        reason = "pictures lie in none"
        if strange:
            reason = f"{min(strange)!r} is not {known}"
        return None, f"none were given, and folders do not tell: {reason}"
    return np.array(numbers, dtype=np.int64), "the folders that the pictures lie in"


def _of_table(file: Path, names: Sequence[str], known: _Classes) -> Labels:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"labels: {file} cannot be read: {error}") from error
    if not set(_COLUMNS) <= set(columns):
        raise ValueError(
            f'labels must have the columns "image" and "label"; {file} has {columns}'
        )
    told = {row["image"]: row["label"] or "" for row in rows}
    labels = []
    for name in names:
        if name not in told:
            raise ValueError(f"labels: {file} has no line for the image {name!r}")
        number = known.number(told[name].strip())
        if number is None:
            raise ValueError(
                f"labels must each be {known}; {file} has {told[name]!r} for {name!r}"
            )
        labels.append(number)
    return np.array(labels, dtype=np.int64)


def _array(file: Path) -> npt.NDArray[Any] | None:
    """Return the labels in a file; None if a .npz has none."""
    try:
        if file.suffix.lower() == ".npy":
            return np.load(file)  # refuses pickles
        with np.load(file) as arrays:
            for name in _NAMES:
                if name in arrays.files:
                    return np.asarray(arrays[name])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"labels: {file} cannot be read: {error}") from error
    return None


def _of_array(
    found: npt.NDArray[Any],
    file: Path,
    names: Sequence[str],
    n_all: int,
    known: _Classes,
) -> Labels:
    """Return the labels of images that are named by their positions."""
    if found.shape != (n_all,):
        raise ValueError(
            f"labels must hold one number for each of the {n_all} images; {file} has "
            f"an array of shape {found.shape}"
        )
    whole = found.dtype.kind in "iu" and len(found)
    if not whole or found.min() < 0 or found.max() >= known.n:
        raise ValueError(f"labels must each be {known}; {file} has others")
    return found[np.array(names, dtype=np.int64)].astype(np.int64)
