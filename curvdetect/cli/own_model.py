"""``curvdetect fit`` and ``curvdetect score``: a guard for a network of your own."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from curvdetect._base.checks import check_share
from curvdetect._base.extras import require
from curvdetect.estimators.detector import n_allowed_above
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.guard import GuardedClassifier
from curvdetect.network import TorchModel
from curvdetect.network.loading import load_module
from curvdetect.storage import Batch, guards, read_images
from curvdetect.storage.tables import check_table, written_table

__all__ = ["reported", "run_fit", "run_score"]

_COLUMNS = ("image", "label", "model_label", "recovered_label", "flagged", "score")


def run_fit(
    factory: str,
    images: str | Path,
    *,
    out: str | Path,
    input_shape: tuple[int, int, int],
    weights: str | Path | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    target_fpr: float = 0.01,
    n_boundaries: int | None = None,
    resize: bool = False,
    device: str | None = None,
    seed: int = 0,
) -> GuardedClassifier:
    """Calibrate a guard on clean images and save it; say on stderr what was done.

    Parameters
    ----------
    factory, weights
        As in :func:`curvdetect.network.loading.load_module`.
    images : str or Path
        Clean images that the network was not trained on, and gets right.
    out : str or Path
        The file of the guard, see :func:`curvdetect.storage.save`.
    input_shape : (int, int, int)
        Channels, height and width.
    mean, std : tuple of float, optional
        Normalisation of the network, a number for each channel or one for all.
    target_fpr : float, default=0.01
        Share of clean images that may be flagged.
    n_boundaries : int, optional
        As in :class:`~curvdetect.CurvatureFeaturizer`; all by default.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`.
    device : str, optional
        torch device.
    seed : int, default=0
        Of the directions.

    Returns
    -------
    GuardedClassifier
        Fitted.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    require("skops.io", extra="skops")  # before any long work
    check_share("target_fpr", target_fpr)
    if not Path(out).absolute().parent.is_dir():
        raise ValueError(f"out: there is no folder {Path(out).parent}")
    model = TorchModel(
        load_module(factory, weights),
        input_shape=input_shape,
        mean=mean,
        std=std,
        device=device,
    )
    batches = list(reported(read_images(images, input_shape, resize=resize)))
    X = np.concatenate([batch.X for batch in batches])
    if not len(X):
        raise ValueError(f"images: none of those in {images} could be used")
    n_allowed_above(len(X), target_fpr)
    featurizer = CurvatureFeaturizer(
        model, n_boundaries=n_boundaries, random_state=seed, verbose=1
    )
    guard = GuardedClassifier(model, featurizer=featurizer, target_fpr=target_fpr)
    guard.fit(X)
    guards.save(guard, out)
    threshold = guard.detector_.threshold_
    print(
        f"{len(X)} images; step {guard.featurizer_.step_:.4g}; scores above "
        f"{threshold:.4g} are flagged; the guard is in {out}",
        file=sys.stderr,
    )
    return guard


def run_score(
    factory: str,
    guard: str | Path,
    images: str | Path,
    *,
    out: str | Path = "-",
    resize: bool = False,
    device: str | None = None,
) -> int:
    """Score images with a guard, and write a line for each.

    Parameters
    ----------
    factory : str
        As in :func:`curvdetect.network.loading.load_module`; the weights are the guard's.
    guard : str or Path
        What :func:`run_fit` saved.
    images : str or Path
        As in :func:`~curvdetect.storage.read_images`.
    out : str or Path, default="-"
        A .csv or .json file, written as images are scored, or a .parquet file, written
        at the end; "-" is standard output, as CSV.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`.
    device : str, optional
        torch device.

    Returns
    -------
    int
        How many images were scored.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    check_table(out)
    loaded = guards.load(guard, load_module(factory).to(device or "cpu"))
    if not isinstance(loaded, GuardedClassifier):
        raise ValueError(
            f"guard must be a file of curvdetect fit; {guard} holds a "
            f"{type(loaded).__name__}"
        )
    n_scored = n_flagged = 0
    shape: Any = loaded.featurizer_.input_shape_
    bounds = loaded.featurizer_.model_.bounds
    if bounds != (0, 1) or len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            "guard must be for pictures in [0, 1] of shape (1 or 3, height, width); "
            f"got one for bounds {bounds} and shape {shape}"
        )
    batches = reported(read_images(images, shape, resize=resize))
    first = next(batches)  # before an older result is overwritten
    with written_table(out, _COLUMNS) as write:
        for batch in itertools.chain([first], batches):
            if not len(batch.X):
                continue
            found = loaded.assess(batch.X)
            write([batch.names, *(getattr(found, name) for name in _COLUMNS[1:])])
            n_scored += len(batch.X)
            n_flagged += int(found.flagged.sum())
    print(f"{n_scored} images scored, {n_flagged} flagged", file=sys.stderr)
    return n_scored


def reported(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Pass batches on; say on stderr what was refused, and at the end how many."""
    n_refused = 0
    for batch in batches:
        for name, reason in batch.refused.items():
            print(f"curvdetect: refused {name}: {reason}", file=sys.stderr)
        n_refused += len(batch.refused)
        yield batch
    if n_refused:
        print(f"curvdetect: {n_refused} images were refused", file=sys.stderr)
