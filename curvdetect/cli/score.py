"""``curvdetect score``: score images with a guard of ``curvdetect fit``."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curvdetect.cli._network import add_companion, add_model, loaded_module
from curvdetect.cli._options import add_command, add_device
from curvdetect.cli._pictures import add_pictures, reported
from curvdetect.cli._streams import results_alone

if TYPE_CHECKING:
    from curvdetect import GuardedClassifier

__all__ = ["run_score"]

_COLUMNS = ("image", "label", "model_label", "recovered_label", "flagged", "score")


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "score",
        run_score,
        help="score images with such a guard",
        description=(
            "Score images with a guard: a line for each, with the guard's label, the "
            "network's, the recovered one, whether the image is flagged, and the score."
        ),
    )
    add_model(parser)
    add_companion(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    parser.add_argument("--guard", type=Path, required=True, help="file of the guard")
    parser.add_argument(
        "--out",
        default="-",
        help="a .csv, .json or .parquet file, or - for standard output (default)",
    )
    return parser


def run_score(
    factory: str,
    guard: str | Path,
    images: str | Path,
    *,
    out: str | Path = "-",
    companion: str | None = None,
    resize: bool = False,
    device: str | None = None,
) -> int:
    """Score images with a guard, and write a line for each.

    Parameters
    ----------
    factory : str
        As in :func:`curvdetect.network.load_module`; the weights are the
        guard's.
    guard : str or Path
        What :func:`curvdetect.cli.fit.run_fit` saved.
    images : str or Path
        As in :func:`~curvdetect.storage.read_images`.
    out : str or Path, default="-"
        A .csv or .json file, written as images are scored, or a .parquet file, written
        at the end; "-" is standard output, as CSV, and what the network's code prints
        goes to standard error.
    companion : str, optional
        The same as `factory`, for the companion of a guard that has one.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`.
    device : str, optional
        torch device; the CPU by default.

    Returns
    -------
    int
        How many images were scored.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    from curvdetect.storage.tables import check_table

    check_table(out)
    with results_alone() as stdout:
        n_scored, n_flagged = _score(
            factory,
            guard,
            images,
            out=stdout if str(out) == "-" else out,
            companion=companion,
            resize=resize,
            device=device,
        )
    print(f"{n_scored} images scored, {n_flagged} flagged", file=sys.stderr)
    return n_scored


def _score(
    factory: str,
    guard: str | Path,
    images: str | Path,
    *,
    out: str | Path | IO[str],
    companion: str | None,
    resize: bool,
    device: str | None,
) -> tuple[int, int]:
    """Write a line for each image; return how many there are, and how many flagged."""
    from curvdetect.storage import read_images
    from curvdetect.storage.tables import written_table

    loaded = _loaded_guard(guard, factory, companion, device)
    shape = _shape_of_pictures(loaded)
    n_scored = n_flagged = 0
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
    return n_scored, n_flagged


def _loaded_guard(
    guard: str | Path, factory: str, companion: str | None, device: str | None
) -> GuardedClassifier:
    from curvdetect import GuardedClassifier
    from curvdetect.storage import load

    second = None if companion is None else loaded_module(companion, device=device)
    loaded = load(guard, loaded_module(factory, device=device), companion=second)
    if not isinstance(loaded, GuardedClassifier):
        raise ValueError(
            f"guard must be a file of curvdetect fit; {guard} holds a "
            f"{type(loaded).__name__}"
        )
    return loaded


def _shape_of_pictures(guard: GuardedClassifier) -> tuple[int, int, int]:
    """Return the shape that a guard takes, if it takes pictures."""
    shape: Any = guard.input_shape_
    bounds = guard.model_.bounds
    if bounds != (0, 1) or len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            "guard must be for pictures in [0, 1] of shape (1 or 3, height, width); "
            f"got one for bounds {bounds} and shape {shape}"
        )
    return shape
