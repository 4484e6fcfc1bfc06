"""``curvdetect score``: score images with a guard of ``curvdetect fit``."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curvdetect.cli._guards import add_networks, loaded_guard
from curvdetect.cli._options import add_command, add_device
from curvdetect.cli._pictures import add_pictures, read
from curvdetect.cli._streams import results_alone

if TYPE_CHECKING:
    from curvdetect import GuardedClassifier, TorchModel

__all__ = ["run_score"]

_LABELS = ("label", "model_label", "recovered_label")


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "score",
        run_score,
        help="flag and relabel images with a guard that fit saved",
        description=(
            "Score images with a guard that curvdetect fit saved. Writes a line for "
            "each image: the guard's label, the network's label, the recovered label "
            "(and class names, if the network has any), whether the image is flagged, "
            "and the score, which is positive if it is."
        ),
    )
    add_networks(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    parser.add_argument("--guard", type=Path, required=True, help="file of the guard")
    parser.add_argument(
        "--out",
        default="-",
        help="a .csv, .json or .parquet file, or - for CSV on standard output "
        "(default)",
    )
    return parser


def run_score(
    factory: str | None,
    guard: str | Path,
    images: str | Path,
    *,
    preset: str | None = None,
    out: str | Path = "-",
    weights: str | Path | None = None,
    weights_key: str | None = None,
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    resize: bool = False,
    device: str | None = None,
) -> int:
    """Score images with a guard, and write a line for each.

    Parameters
    ----------
    factory : str or None
        As in :func:`curvdetect.network.load_module`; the weights are the guard's. None
        for a preset.
    guard : str or Path
        What :func:`curvdetect.cli.fit.run_fit` saved.
    images : str or Path
        As in :func:`~curvdetect.storage.read_images`.
    preset : str, optional
        As in :func:`curvdetect.cli.fit.run_fit`. Nothing is downloaded where the guard
        holds the weights.
    out : str or Path, default="-"
        A .csv, .json or .parquet file, which appears when all images are scored; "-" is
        standard output, as CSV, written as images are scored, and what the network's
        code prints goes to standard error.
    weights, weights_key
        As in :func:`curvdetect.network.load_module`, for a guard that does not hold
        them: those that it was fitted with.
    companion, companion_weights
        The same as `factory` or `preset`, and `weights`, for the companion of a guard
        that has one.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`; a guard whose network has a
        preparation resizes pictures as that says.
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
    OSError
        If the table cannot be written; a file that was there before is still whole.
    """
    from curvdetect.storage.tables import check_table

    check_table(out)
    with results_alone() as stdout:
        loaded = loaded_guard(
            guard,
            {"factory": factory, "preset": preset},
            companion,
            {"weights": weights, "weights_key": weights_key},
            companion_weights,
            device=device,
        )
        n_scored, n_flagged = _score(
            loaded, images, out=stdout if str(out) == "-" else out, resize=resize
        )
    print(f"{n_scored} images scored, {n_flagged} flagged", file=sys.stderr)
    return n_scored


def _score(
    guard: GuardedClassifier,
    images: str | Path,
    *,
    out: str | Path | IO[str],
    resize: bool,
) -> tuple[int, int]:
    """Write a line for each image; return how many there are, and how many flagged."""
    from curvdetect.storage.tables import written_table

    columns = _columns(guard.model_)
    n_scored = n_flagged = 0
    batches = read(images, guard.model_, resize=resize)
    first = next(batches)  # before there is a table without rows
    with written_table(out, ["image", *columns]) as write:
        for batch in itertools.chain([first], batches):
            if not len(batch.X):
                continue
            found = guard.assess(batch.X)
            write([batch.names, *(getattr(found, name) for name in columns)])
            n_scored += len(batch.X)
            n_flagged += int(found.flagged.sum())
    return n_scored, n_flagged


def _columns(model: TorchModel) -> list[str]:
    """Return what is written of an image, names of classes where there are any."""
    with_names = (name for label in _LABELS for name in (label, f"{label}_name"))
    labels = _LABELS if model.class_names is None else with_names
    return [*labels, "flagged", "score"]
