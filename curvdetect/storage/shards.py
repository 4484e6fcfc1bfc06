"""Features of sets too large to lose: kept on disk, a shard of images at a time."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from curvdetect._base.checks import check_count
from curvdetect._base.files import written_at_once
from curvdetect.estimators.featurizer import CurvatureFeaturizer

__all__ = ["transform_in_shards"]

_VERSION = 1
_MANIFEST = "manifest.json"


def transform_in_shards(
    featurizer: CurvatureFeaturizer,
    X: npt.NDArray[Any],
    folder: str | Path,
    *,
    shard_size: int = 1000,
    verbose: int = 1,
) -> npt.NDArray[Any]:
    """Transform a large set of images, keeping what is finished.

    The features of every `shard_size` images are written to a file of `folder` as soon
    as they are there, at once or not at all. After an interruption (Ctrl-C, a power
    cut) the same call measures only what is missing. Several processes may work on one
    folder: at worst a shard is measured twice, with the same result.

    Parameters
    ----------
    featurizer : CurvatureFeaturizer
        Fitted, with a `random_state`: without one, a script that is started again draws
        other directions, which is refused.
    X : array of shape (n_samples, *input_shape) or (n_samples, d)
        Images; a memory-mapped array is read a shard at a time.
    folder : str or Path
        Where the shards are kept; made if it is missing.
    shard_size : int, default=1000
        Images of a shard.
    verbose : int, default=1
        1 shows a progress bar on stderr, with images per second and the time left.

    Returns
    -------
    ndarray of shape (n_samples, n_columns)
        As of ``featurizer.transform(X)``. Beside it, memory holds one shard, however
        many there are.

    Raises
    ------
    ValueError
        If the folder holds features of another network, other settings or other
        images; or if X is empty.

    Examples
    --------
    >>> import tempfile
    >>> from curvdetect import CurvatureFeaturizer
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import trained_model
    >>> from curvdetect.storage import transform_in_shards
    >>> X, y = load_fashion_mnist_sample()
    >>> model = trained_model("fashion-mnist")
    >>> featurizer = CurvatureFeaturizer(model, n_boundaries=1, random_state=0)
    >>> featurizer = featurizer.fit(X[:50])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     F = transform_in_shards(featurizer, X[:50], folder, shard_size=20)
    >>> F.shape
    (50, 10)
    """
    check_is_fitted(featurizer)
    check_count("shard_size", shard_size)
    if not len(X):
        raise ValueError("X must hold at least one image; got none")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = str(joblib.hash(featurizer._settings()))
    _check_manifest(folder, settings, len(X), shard_size)
    parts = []
    with tqdm(
        total=len(X), unit="image", desc="features", disable=not verbose
    ) as progress:
        for start in range(0, len(X), shard_size):
            images = np.asarray(X[start : start + shard_size])
            parts.append(_shard(featurizer, images, folder, start, settings))
            progress.update(len(images))
    return np.concatenate(parts)


def _check_manifest(
    folder: Path, settings: str, n_images: int, shard_size: int
) -> None:
    """Write down what is measured; refuse a folder where it is something else."""
    manifest = {
        "version": _VERSION,
        "features": settings,
        "n_images": n_images,
        "shard_size": shard_size,
    }
    path = folder / _MANIFEST
    if not path.exists():
        with written_at_once(path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=2) + "\n")
        return
    known = json.loads(path.read_text())
    for name, expected in manifest.items():
        if known.get(name) != expected:
            what = {
                "version": "of another version of curvdetect",
                "features": "of another network or other settings of the featurizer",
            }.get(name, f"with {name}={known.get(name)}, not {expected}")
            raise ValueError(
                f"folder must be empty or hold the same features; {folder} holds those "
                f"{what}. Give another folder, or delete this one"
            )


def _shard(
    featurizer: CurvatureFeaturizer,
    images: npt.NDArray[Any],
    folder: Path,
    start: int,
    settings: str,
) -> npt.NDArray[Any]:
    """Read the features of a shard, or measure them and write them down."""
    path = folder / f"features-{start:09d}.npz"
    of_images = str(joblib.hash(np.ascontiguousarray(images)))
    known = _read(path)
    if known is None:
        features = featurizer.transform(images)
        with written_at_once(path) as temporary, temporary.open("wb") as file:
            np.savez(file, features=features, images=of_images, settings=settings)
        return features
    if str(known["settings"]) != settings:  # two processes began at once
        raise ValueError(
            f"folder must hold the features of one network and one featurizer; {path} "
            "is of another. Give another folder, or delete this one"
        )
    if str(known["images"]) != of_images:
        raise ValueError(
            f"X must hold the images that {folder} was made from; those from number "
            f"{start} on are others. Give another folder, or delete this one"
        )
    return known["features"]


def _read(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Return the arrays of a shard; None if it is missing or was cut short."""
    try:
        # Arrays alone: NumPy refuses pickles.
        with path.open("rb") as file, np.load(file) as known:
            return {name: known[name] for name in ("features", "images", "settings")}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
