"""``curvdetect evade``: what it costs attackers who know a guard to evade it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._guards import add_guard, loaded_guard
from curvdetect.cli._options import add_command, add_device, add_seed, check_folder
from curvdetect.cli._pictures import add_labels, add_pictures, read_labelled

if TYPE_CHECKING:
    from curvdetect.evasion import MeasuredEvasion

__all__ = ["run_evade"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "evade",
        run_evade,
        help="measure what it costs attackers who know a guard to evade it",
        description=(
            "Attack a learned guard that curvdetect fit saved as somebody would who "
            "knows it: search for the smallest changes that fool the network alone, "
            "and for the smallest that fool it while the guard does not flag them. "
            "Writes the median norms for curvdetect report --evasion. Give clean "
            "images that the guard was not fitted with: some are attacked, from the "
            "others, better some 200, the attackers learn. Minutes on a small "
            "network; on photographs use a GPU."
        ),
    )
    add_guard(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    add_labels(parser)
    parser.add_argument(
        "--n-attacked",
        type=int,
        default=40,
        metavar="N",
        help="images to attack (default: %(default)s)",
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="search longer, by more attacks, towards more classes",
    )
    add_seed(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evasion.json"),
        help="JSON file for the figures (default: %(default)s)",
    )
    return parser


def run_evade(
    factory: str | None,
    guard: str | Path,
    images: str | Path,
    *,
    preset: str | None = None,
    out: str | Path = "evasion.json",
    labels: str | Path | None = None,
    n_attacked: int = 40,
    thorough: bool = False,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    resize: bool = False,
    device: str | None = None,
    seed: int = 0,
) -> MeasuredEvasion:
    """Measure what it costs to evade a guard; say it on stderr, and write a file.

    Parameters
    ----------
    factory, guard, preset, weights, weights_key, companion, companion_weights, device
        As in :func:`curvdetect.cli.score.run_score`.
    images, labels
        As in :func:`curvdetect.cli.report.run_report`. Without labels, those that the
        network gives are taken as true.
    out : str or Path, default="evasion.json"
        For ``curvdetect report --evasion``; it appears when all is measured.
    n_attacked : int, default=40
        How many images are attacked. The others teach the attackers.
    thorough : bool, default=False
        Whether :func:`~curvdetect.evasion.measure_evasion` is not `light`.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`.
    seed : int, default=0
        Of the choice of these images, and of what the attackers learn.

    Returns
    -------
    MeasuredEvasion
        As :func:`~curvdetect.evasion.measure_evasion` gives it; `rows` count in the
        order in which the images were read.

    Raises
    ------
    ValueError
        If anything is not what it must be; before any long work.
    OSError
        If the file cannot be written; one that was there before is still whole.
    """
    from dataclasses import replace

    import numpy as np

    from curvdetect._base.checks import check_count
    from curvdetect.estimators.learned import learned_detector
    from curvdetect.evasion import measure_evasion
    from curvdetect.report.guard.evasion import write_evasion

    check_count("n_attacked", n_attacked)
    check_folder(out)
    if Path(out).is_dir():
        raise ValueError(f"out must be a file; {out} is a folder")
    loaded = loaded_guard(
        guard,
        {"factory": factory, "preset": preset},
        companion,
        {"weights": weights, "weights_key": weights_key},
        companion_weights,
        device=device,
    )
    try:
        detector = learned_detector(loaded)
    except TypeError as error:
        raise ValueError(f"{error}. Only a learned guard can be attacked so") from None
    X, _, known, of_labels = read_labelled(images, labels, loaded.model_, resize=resize)
    if known is None:
        of_labels = f"the network's, taken as true: {of_labels}"
    print(f"curvdetect: {len(X)} images; labels: {of_labels}", file=sys.stderr)
    # Folders may hold one class each: the first images would be of one alone.
    order = np.random.default_rng(seed).permutation(len(X))
    found = measure_evasion(
        detector,
        X[order],
        None if known is None else known[order],
        n_attacked=n_attacked,
        light=not thorough,
        seed=seed,
        verbose=1,
    )
    found = replace(found, rows=order[found.rows])
    write_evasion(out, found.searches())
    print(f"{found}\nthe figures are in {out}", file=sys.stderr)
    return found
