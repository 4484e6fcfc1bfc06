"""Features and scores of sets too large to lose: kept on disk, shard by shard."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from curvdetect._base.checks import check_count
from curvdetect._base.files import written_at_once, written_text
from curvdetect.estimators._image_detector import image_detector
from curvdetect.estimators.featurizer import CurvatureFeaturizer

__all__ = ["score_in_shards", "transform_in_shards"]

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
    OSError
        If a shard cannot be written, as where the disk is full. What was finished is
        kept.

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
    shards = _Shards(
        Path(folder), "features", featurizer.transform, _digest(featurizer)
    )
    return shards.of(X, shard_size, verbose)


def score_in_shards(
    detector: Any,
    X: npt.NDArray[Any],
    folder: str | Path,
    *,
    shard_size: int = 1000,
    verbose: int = 1,
) -> npt.NDArray[np.float64]:
    """Score a large set of images, keeping what is finished.

    Parameters
    ----------
    detector : LearnedDetector, VotingDetector, GuardedClassifier or CurvatureGuard
        Fitted, with a learned detector or one that votes.
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
    ndarray of shape (n_samples,)
        As of ``detector.score_samples(X)``: flagged is what is above its
        ``threshold_``.

    Raises
    ------
    TypeError
        If it has neither a learned detector nor one that votes.
    ValueError
        If the folder holds scores of another detector or other images; or if X is
        empty.
    OSError
        If a shard cannot be written.

    See Also
    --------
    transform_in_shards : What is kept, and when.

    Examples
    --------
    >>> import tempfile
    >>> from curvdetect import LearnedDetector
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> from curvdetect.storage import score_in_shards
    >>> X, y = load_fashion_mnist_sample()
    >>> detector = LearnedDetector(
    ...     load_lenet("fashion-mnist"), target_fpr=0.1, self_test=False, random_state=0
    ... ).fit(X[:90], y[:90])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scores = score_in_shards(detector, X[90:130], folder, shard_size=20)
    >>> scores.shape
    (40,)
    """
    scores = image_detector(detector)
    shards = _Shards(Path(folder), "scores", scores.score_samples, _digest(scores))
    return shards.of(X, shard_size, verbose)


def _digest(estimator: Any) -> str:
    return str(joblib.hash(estimator._settings()))


@dataclass(frozen=True)
class _Shards:
    """A folder of what an estimator measured.

    Attributes
    ----------
    folder : Path
        Where they are.
    what : str
        "features" or "scores": of what, in names of files and messages.
    measure : callable
        Of a shard's images.
    settings : str
        Digest of all that it depends on, besides the images.
    """

    folder: Path
    what: str
    measure: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    settings: str

    def of(
        self, X: npt.NDArray[Any], shard_size: int, verbose: int
    ) -> npt.NDArray[Any]:
        """Return what is measured of all images; what is there is read."""
        check_count("shard_size", shard_size)
        if not len(X):
            raise ValueError("X must hold at least one image; got none")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_manifest(len(X), shard_size)
        parts = []
        with tqdm(
            total=len(X), unit="image", desc=self.what, disable=not verbose
        ) as progress:
            for start in range(0, len(X), shard_size):
                images = np.asarray(X[start : start + shard_size])
                parts.append(self._shard(images, start))
                progress.update(len(images))
        return np.concatenate(parts)

    def _check_manifest(self, n_images: int, shard_size: int) -> None:
        """Write down what is measured; refuse a folder where it is something else."""
        manifest = {
            "version": _VERSION,
            self.what: self.settings,
            "n_images": n_images,
            "shard_size": shard_size,
        }
        path = self.folder / _MANIFEST
        if not path.exists():
            written_text(path, json.dumps(manifest, indent=2) + "\n")
            return
        known = json.loads(path.read_text())
        for name, expected in manifest.items():
            if known.get(name) != expected:
                what = {
                    "version": "of another version of curvdetect",
                    self.what: "of another network or with other settings",
                }.get(name, f"with {name}={known.get(name)}, not {expected}")
                raise ValueError(
                    f"folder must be empty or hold the same {self.what}; {self.folder} "
                    f"holds those {what}. Give another folder, or delete this one"
                )

    def _shard(self, images: npt.NDArray[Any], start: int) -> npt.NDArray[Any]:
        """Read what was measured of a shard, or measure it and write it down."""
        path = self.folder / f"{self.what}-{start:09d}.npz"
        of_images = str(joblib.hash(np.ascontiguousarray(images)))
        known = self._read(path)
        if known is None:
            found = self.measure(images)
            arrays: dict[str, Any] = {
                self.what: found,
                "images": of_images,
                "settings": self.settings,
            }
            with written_at_once(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)
            return found
        if str(known["settings"]) != self.settings:  # two processes began at once
            raise ValueError(
                f"folder must hold {self.what} of one network and one estimator; "
                f"{path} is of another. Give another folder, or delete this one"
            )
        if str(known["images"]) != of_images:
            raise ValueError(
                f"X must hold the images that {self.folder} was made from; those from "
                f"number {start} on are others. Give another folder, or delete this one"
            )
        return known[self.what]

    def _read(self, path: Path) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays of a shard; None if it is missing or was cut short."""
        try:
            # Arrays alone: NumPy refuses pickles.
            with path.open("rb") as file, np.load(file) as known:
                return {name: known[name] for name in (self.what, "images", "settings")}
        except Exception:  # whatever broken data make of NumPy's reader
            return None
