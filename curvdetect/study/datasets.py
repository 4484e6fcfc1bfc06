"""Images to try things on: an embedded sample, and torchvision's data sets."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect._base.extras import require

__all__ = [
    "DATASETS",
    "default_data_dir",
    "load_dataset",
    "load_digits",
    "load_fashion_mnist_sample",
]

#: Names that :func:`load_dataset` knows, and torchvision's class for each.
DATASETS = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "cifar10": "CIFAR10"}

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def load_fashion_mnist_sample() -> tuple[Images, Labels]:
    """Load the embedded sample of Fashion-MNIST test images.

    Returns
    -------
    X : ndarray of shape (800, 1, 28, 28), float32
        The first 800 test images, in [0, 1].
    y : ndarray of shape (800,), int64
        Labels: 0 T-shirt, 1 trouser, 2 pullover, 3 dress, 4 coat, 5 sandal,
        6 shirt, 7 sneaker, 8 bag, 9 ankle boot.

    Notes
    -----
    Fashion-MNIST is (c) 2017 Zalando SE, MIT licence; see the notice beside the file.

    Examples
    --------
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> X, y = load_fashion_mnist_sample()
    >>> X.shape, float(X.max())
    ((800, 1, 28, 28), 1.0)
    """
    path = resources.files("curvdetect") / "assets" / "fashion_mnist_sample.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as sample:
        return _as_images(sample["x"]), sample["y"].astype(np.int64)


def load_digits() -> tuple[Images, Labels]:
    """Load scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

    Returns
    -------
    X : ndarray of shape (1797, 1, 8, 8), float32
        Images in [0, 1].
    y : ndarray of shape (1797,), int64
        Digits.

    Examples
    --------
    >>> from curvdetect.study.datasets import load_digits
    >>> load_digits()[0].shape
    (1797, 1, 8, 8)
    """
    from sklearn.datasets import load_digits as load

    X, y = load(return_X_y=True)
    return (X / 16).reshape(-1, 1, 8, 8).astype(np.float32), y.astype(np.int64)


def default_data_dir() -> Path:
    """Return the folder of data sets: ``$CURVDETECT_DATA`` or the user's cache.

    Returns
    -------
    Path
        A folder in torchvision's layout; it need not exist.

    Examples
    --------
    >>> from curvdetect.study.datasets import default_data_dir
    >>> default_data_dir().is_absolute()
    True
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CURVDETECT_DATA") or cache / "curvdetect").absolute()


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    train: bool = False,
    download: bool = True,
) -> tuple[Images, Labels]:
    """Load a data set through torchvision, as arrays.

    A file ``<name>/<name>_test*.npz`` (or ``_train*``) in the folder, with bytes x of
    shape (n, height, width[, 3]) and labels y, is taken first: a part of a data set
    is enough to try things on.

    Parameters
    ----------
    name : {"fashion-mnist", "mnist", "cifar10"}
        Which.
    data_dir : path, optional
        Folder in torchvision's layout; :func:`default_data_dir` by default.
    train : bool, default=False
        Whether to load the training part instead of the test part.
    download : bool, default=True
        Whether torchvision may download files that are missing.

    Returns
    -------
    X : ndarray of shape (n_samples, n_channels, height, width), float32
        Images in [0, 1].
    y : ndarray of shape (n_samples,), int64
        Labels.

    Raises
    ------
    ValueError
        If `name` is not known.
    FileNotFoundError
        If the files are neither there nor to be downloaded; the message says where
        they should be.
    ImportError
        If torchvision is missing (extra "vision").
    """
    if name not in DATASETS:
        raise ValueError(f"name must be one of {sorted(DATASETS)}; got {name!r}")
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    part = "train" if train else "test"
    arrays = sorted((root / name).glob(f"{name}_{part}*.npz"))
    if arrays:
        with np.load(arrays[0], allow_pickle=False) as stored:
            return _as_images(stored["x"]), stored["y"].astype(np.int64)
    datasets = require("torchvision.datasets", extra="vision")
    try:
        dataset: Any = getattr(datasets, DATASETS[name])(
            str(root), train=train, download=download
        )
    # torchvision raises RuntimeError for missing files, URLError (an OSError) or
    # RuntimeError without a network
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"{name} is not in {root} and could not be downloaded "
            f"({str(error).partition(chr(10))[0]}). "
            f"Put its files there as {_layout(name)}, or name another folder with "
            "data_dir (--data-dir, or the environment variable CURVDETECT_DATA)."
        ) from error
    return _as_images(np.asarray(dataset.data)), np.asarray(dataset.targets, np.int64)


def _as_images(X: npt.NDArray[np.uint8]) -> Images:
    """Scale bytes (n, height, width[, 3]) to [0, 1], with the channel axis second."""
    X = X[:, None] if X.ndim == 3 else X.transpose(0, 3, 1, 2)
    return X.astype(np.float32) / np.float32(255)


def _layout(name: str) -> str:
    if name == "cifar10":
        return "cifar-10-batches-py/data_batch_1 ... test_batch"
    return f"{DATASETS[name]}/raw/t10k-images-idx3-ubyte (and the three others)"
