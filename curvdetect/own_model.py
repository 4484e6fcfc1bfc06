"""``curvdetect fit`` and ``curvdetect score``: a guard for a network of your own."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from curvdetect import persistence
from curvdetect._extras import require
from curvdetect.detector import n_allowed_above
from curvdetect.featurizer import CurvatureFeaturizer
from curvdetect.geometry._checks import check_share
from curvdetect.guard import GuardedClassifier
from curvdetect.images import Batch, read_images
from curvdetect.model import TorchModel

__all__ = ["load_module", "run_fit", "run_score"]

_COLUMNS = ("image", "label", "model_label", "recovered_label", "flagged", "score")


def load_module(factory: str, weights: str | Path | None = None) -> nn.Module:
    """Make a network by a function that is named.

    Parameters
    ----------
    factory : str
        ``package.module:name``, where `name` is a module or a function without
        arguments that returns one. Looked for in the current folder too. It is code of
        yours, and is executed.
    weights : str or Path, optional
        State dict, or a checkpoint with one called "state_dict" or "model". Loaded
        with ``weights_only=True``: nothing in it is executed.

    Returns
    -------
    torch.nn.Module
        In eval mode, on the CPU.

    Raises
    ------
    ValueError
        If there is no such function, it returns something else, or the weights do not
        fit.
    """
    package, _, name = factory.partition(":")
    if not package or not name:
        raise ValueError(f"model must be package.module:factory; got {factory!r}")
    if "" not in sys.path:
        sys.path.append("")  # last: nothing in the current folder hides a package
    try:
        made = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"model: cannot find {factory} ({error})") from error
    if not isinstance(made, nn.Module):
        made = _called(made, factory)
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"model must give a torch.nn.Module; {factory} gave {type(made).__name__}"
        )
    if weights is not None:
        _load_weights(made, weights)
    return made.eval()


def _called(make: Any, factory: str) -> Any:
    if not callable(make):
        raise ValueError(f"model: {factory} is neither a network nor a function")
    try:
        return make()
    except TypeError as error:
        raise ValueError(
            f"model: {factory} cannot be called without arguments ({error})"
        ) from error


def _load_weights(module: nn.Module, path: str | Path) -> None:
    try:
        known = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a broken file makes of torch's reader
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ValueError(f"weights: {path} cannot be read: {reason}") from error
    for name in ("state_dict", "model"):
        if isinstance(known, dict) and isinstance(known.get(name), dict):
            known = known[name]
    try:
        module.load_state_dict(known)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"weights do not fit the network: {reason}") from error


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
        As in :func:`load_module`.
    images : str or Path
        Clean images that the network was not trained on, and gets right.
    out : str or Path
        The file of the guard, see :func:`curvdetect.persistence.save`.
    input_shape : (int, int, int)
        Channels, height and width.
    mean, std : tuple of float, optional
        Normalisation of the network, a number for each channel or one for all.
    target_fpr : float, default=0.01
        Share of clean images that may be flagged.
    n_boundaries : int, optional
        As in :class:`CurvatureFeaturizer`; all by default.
    resize : bool, default=False
        As in :func:`read_images`.
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
    batches = list(_reported(read_images(images, input_shape, resize=resize)))
    X = np.concatenate([batch.X for batch in batches])
    if not len(X):
        raise ValueError(f"images: none of those in {images} could be used")
    n_allowed_above(len(X), target_fpr)
    featurizer = CurvatureFeaturizer(
        model, n_boundaries=n_boundaries, random_state=seed, verbose=1
    )
    guard = GuardedClassifier(model, featurizer=featurizer, target_fpr=target_fpr)
    guard.fit(X)
    persistence.save(guard, out)
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
        As in :func:`load_module`; the weights are those of the guard.
    guard : str or Path
        What :func:`run_fit` saved.
    images : str or Path
        As in :func:`read_images`.
    out : str or Path, default="-"
        A .csv or .json file; "-" is standard output, as CSV. Written as images are
        scored.
    resize : bool, default=False
        As in :func:`read_images`.
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
    if str(out) != "-" and Path(out).suffix not in (".csv", ".json"):
        raise ValueError(f"out must end with .csv or .json, or be -; got {out}")
    loaded = persistence.load(guard, load_module(factory).to(device or "cpu"))
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
    batches = _reported(read_images(images, shape, resize=resize))
    first = next(batches)  # before an older result is overwritten
    with _opened(out) as file:
        writer = _Writer(file, as_json=Path(out).suffix == ".json")
        for batch in itertools.chain([first], batches):
            if not len(batch.X):
                continue
            found = loaded.assess(batch.X)
            columns = [getattr(found, name).tolist() for name in _COLUMNS[1:]]
            writer.write(zip(batch.names, *columns, strict=True))
            n_scored += len(batch.X)
            n_flagged += int(found.flagged.sum())
        writer.close()
    print(f"{n_scored} images scored, {n_flagged} flagged", file=sys.stderr)
    return n_scored


class _Writer:
    """Write rows as they come: CSV, or a JSON array of objects."""

    def __init__(self, file: IO[str], *, as_json: bool) -> None:
        self.file, self.as_json = file, as_json
        self.separator = "[\n"
        self.csv = csv.writer(file)
        if not as_json:
            self.csv.writerow(_COLUMNS)

    def write(self, rows: Any) -> None:
        for row in rows:
            if self.as_json:
                line = json.dumps(dict(zip(_COLUMNS, row, strict=True)))
                self.file.write(self.separator + line)
                self.separator = ",\n"
            else:
                self.csv.writerow(row)
        self.file.flush()

    def close(self) -> None:
        if self.as_json:
            self.file.write("[]\n" if self.separator == "[\n" else "\n]\n")


@contextmanager
def _opened(out: str | Path) -> Iterator[IO[str]]:
    if str(out) == "-":
        yield sys.stdout
        return
    with Path(out).open(
        "w", newline="", encoding="utf-8", errors="backslashreplace"
    ) as file:
        yield file


def _reported(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Pass batches on; say on stderr what was refused, and at the end how many."""
    n_refused = 0
    for batch in batches:
        for name, reason in batch.refused.items():
            print(f"curvdetect: refused {name}: {reason}", file=sys.stderr)
        n_refused += len(batch.refused)
        yield batch
    if n_refused:
        print(f"curvdetect: {n_refused} images were refused", file=sys.stderr)
