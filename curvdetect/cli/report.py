"""``curvdetect report``: one page about a guard that fit saved."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

from curvdetect.cli._guards import add_guard, loaded_guard
from curvdetect.cli._options import add_command, add_device, add_seed
from curvdetect.cli._pictures import add_labels, add_pictures, read_labelled

__all__ = ["run_report"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "report",
        run_report,
        help="write a page about a guard: what it detects, costs, and cannot do",
        description=(
            "Write one HTML page about a guard that curvdetect fit saved: the network, "
            "the calibration, the self-test, the same attacks on new clean images with "
            "ROC curves, costs, false positives, pictures, limits. It needs nothing "
            "from outside. Give images that the guard was not fitted with, and that "
            "are clean. Needs the extra report."
        ),
    )
    add_guard(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    add_labels(parser)
    parser.add_argument(
        "--evasion",
        type=Path,
        metavar="FILE",
        help="JSON file of curvdetect evade: what it costs to evade the guard",
    )
    parser.add_argument(
        "--n-attacked",
        type=int,
        metavar="N",
        help="images to attack, at most; 0 for none (default: 200; 30 of photographs)",
    )
    add_seed(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("curvdetect-report"),
        help="folder for report.html (default: %(default)s)",
    )
    return parser


def run_report(
    factory: str | None,
    guard: str | Path,
    images: str | Path,
    *,
    preset: str | None = None,
    out: str | Path = "curvdetect-report",
    labels: str | Path | None = None,
    evasion: str | Path | None = None,
    n_attacked: int | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    resize: bool = False,
    device: str | None = None,
    seed: int = 0,
) -> Path:
    """Write a page about a guard, and say on stderr where it is.

    Parameters
    ----------
    factory, guard, preset, weights, weights_key, companion, companion_weights, device
        As in :func:`curvdetect.cli.score.run_score`.
    images : str or Path
        As in :func:`~curvdetect.storage.read_images`: clean images that the guard was
        not fitted with.
    out : str or Path, default="curvdetect-report"
        Folder for report.html; made if it is missing.
    labels : str or Path, optional
        True labels. A .csv file with the columns "image" (the name of a picture
        relative to the folder, or the position in an array) and "label" (the position
        or the name of a class); for an array of images, also a .npy file, or a .npz
        file with "y" or "labels". By default the "y" of the .npz file with the images;
        or, of pictures in a folder, the folder that each lies in, if its name is the
        position or the name of a class.
    evasion : str or Path, optional
        JSON file that :func:`curvdetect.cli.evade.run_evade` writes.
    n_attacked : int, optional
        How many images are attacked, and certified where the guard certifies; 0 for
        none. By default 200; 30 where images have more than 50,000 values.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`.
    seed : int, default=0
        Of everything random.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        If anything is not what it must be; before any long work.
    """
    from curvdetect._base.extras import require
    from curvdetect.estimators.self_test import LEAST_FOOLED
    from curvdetect.report.guard.evasion import read_evasion
    from curvdetect.report.guard.facts import Given, Origin, measured
    from curvdetect.report.guard.page import write_page

    for module in ("jinja2", "matplotlib"):  # before any long work
        require(module, extra="report")
    if n_attacked is not None and n_attacked != 0 and n_attacked < LEAST_FOOLED:
        raise ValueError(
            f"n_attacked must be 0, or at least {LEAST_FOOLED}, on which an attack "
            f"must fool the network to count; got {n_attacked}"
        )
    searches = [] if evasion is None else read_evasion(evasion)
    loaded = loaded_guard(
        guard,
        {"factory": factory, "preset": preset},
        companion,
        {"weights": weights, "weights_key": weights_key},
        companion_weights,
        device=device,
    )
    X, names, known, of_labels = read_labelled(
        images, labels, loaded.model_, resize=resize
    )
    folder = _made(out)
    for part in (loaded.detector_, loaded.featurizer_):
        _quiet(part)  # its own progress bars are those of a fit
    facts = measured(
        loaded,
        Given(X, names, known, of_labels),
        origin=Origin(
            guard=Path(guard).name,
            network=preset or str(factory),
            companion=companion or "",
            images=Path(images).resolve().name,
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        ),
        evasion=searches,
        n_attacked=n_attacked,
        seed=seed,
        verbose=1,
    )
    path = write_page(facts, folder)
    print(f"{len(X)} images; the report is {path}", file=sys.stderr)
    return path


def _made(out: str | Path) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder; {folder} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _quiet(part: Any) -> None:
    if hasattr(part, "verbose"):
        part.verbose = 0
    if hasattr(part, "detector_"):  # of one that votes
        _quiet(part.detector_)
