"""Pictures of your own: their options, and what is said of those that are refused."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from curvdetect import TorchModel
    from curvdetect.storage import Batch

__all__ = [
    "add_labels",
    "add_pictures",
    "add_resize",
    "check_any",
    "read",
    "read_all",
    "read_labelled",
]

_ENOUGH = 5  # names in a line


def add_pictures(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add where the pictures come from."""
    parser.add_argument(
        "--images",
        type=Path,
        required=required,
        help="a folder of pictures, one picture, or a .npy or .npz file",
    )
    add_resize(parser)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add where the true labels of the pictures come from."""
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="true labels: a .csv file with the columns image and label, or for an "
        "array a .npy or .npz file. By default y of the .npz with the images, or the "
        "names of the folders that pictures lie in, if these are classes",
    )


def add_resize(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of pictures of another size."""
    parser.add_argument(
        "--resize",
        action="store_true",
        help="resize pictures of the wrong size instead of refusing them; not needed "
        "with a preset, which prepares all pictures as its library does",
    )


def read(
    images: str | Path, model: TorchModel, *, resize: bool, batch_size: int = 256
) -> Iterator[Batch]:
    """Read pictures as a network takes them, a batch at a time.

    Says on stderr what was skipped and refused, and how many.
    """
    from curvdetect.storage import read_images

    n_refused = 0
    for batch in read_images(
        images,
        tuple(model.input_shape or ()),
        resize=resize,
        preparation=model.preparation,
        batch_size=batch_size,
    ):
        _report_skipped(batch.skipped)
        for name, reason in batch.refused.items():
            print(f"curvdetect: refused {name}: {reason}", file=sys.stderr)
        n_refused += len(batch.refused)
        yield batch
    if n_refused:
        print(f"curvdetect: {n_refused} images were refused", file=sys.stderr)


def _report_skipped(skipped: dict[str, str]) -> None:
    """Say what was skipped, a line for each reason: it may be thousands of files."""
    for reason in dict.fromkeys(skipped.values()):
        names = [name for name, why in skipped.items() if why == reason]
        more = f" and {len(names) - _ENOUGH} more" if len(names) > _ENOUGH else ""
        shown = ", ".join(names[:_ENOUGH])
        print(f"curvdetect: skipped {shown}{more}: {reason}", file=sys.stderr)


def read_all(
    images: str | Path, model: TorchModel, *, resize: bool
) -> npt.NDArray[Any]:
    """Return all pictures that can be used; say on stderr which were not."""
    return _named(images, model, resize=resize)[0]


def read_labelled(
    images: str | Path, labels: str | Path | None, model: TorchModel, *, resize: bool
) -> tuple[npt.NDArray[Any], list[str], npt.NDArray[np.int64] | None, str]:
    """Return the same with their names, their labels, if known, and whose these are."""
    from curvdetect.storage.labels import read_labels

    X, names, n_all = _named(images, model, resize=resize)
    known, of_labels = read_labels(
        labels,
        images=images,
        names=names,
        n_all=n_all,
        n_classes=model.n_classes,
        class_names=model.class_names,
    )
    return X, names, known, of_labels


def _named(
    images: str | Path, model: TorchModel, *, resize: bool
) -> tuple[npt.NDArray[Any], list[str], int]:
    """Return the same, with their names, and how many there are with the refused."""
    import numpy as np

    shape = tuple(model.input_shape or ())
    names: list[str] = []
    n_refused = 0

    def each() -> Iterator[npt.NDArray[Any]]:
        nonlocal n_refused
        for batch in read(images, model, resize=resize, batch_size=32):
            names.extend(batch.names)
            n_refused += len(batch.refused)
            yield from batch.X

    # Into one array, which grows: a list of them and their sum would be twice as much.
    X = np.fromiter(each(), np.dtype((np.float32, shape)))
    check_any(len(X), images)
    return X, names, len(X) + n_refused


def check_any(n: int, images: str | Path) -> None:
    """Refuse to go on where all pictures were refused."""
    if not n:
        raise ValueError(f"images: none of those in {images} could be used")
