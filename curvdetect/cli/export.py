"""``curvdetect export``: make a guard a program of torch, which runs without us."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._guards import add_guard, loaded_guard
from curvdetect.cli._options import add_command, add_device, check_folder
from curvdetect.cli._pictures import add_pictures, read_all
from curvdetect.cli._streams import results_alone

if TYPE_CHECKING:
    import numpy.typing as npt

    from curvdetect import GuardedClassifier

__all__ = ["run_export"]

#: Random images that the program is compared on where none are given.
_N_RANDOM = 32


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "export",
        run_export,
        help="make such a guard a .pt2 program, which needs torch alone",
        description=(
            "Write a guard as one program of torch.export: networks, weights, forests "
            "and threshold. It is loaded again and compared with the guard."
        ),
    )
    add_guard(parser)
    add_pictures(parser, required=False)
    add_device(parser, default="cpu")
    parser.add_argument(
        "--every-stage",
        action="store_true",
        help="measure every image to the end, so that no shape depends on the data: "
        "slower",
    )
    parser.add_argument("--out", type=Path, required=True, help="a .pt2 file")
    return parser


def run_export(
    factory: str | None,
    guard: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    images: str | Path | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    companion: str | None = None,
    companion_weights: str | Path | None = None,
    resize: bool = False,
    every_stage: bool = False,
    device: str | None = None,
) -> dict[str, float]:
    """Export a guard, and compare the program with it.

    Parameters
    ----------
    factory, preset, weights, weights_key, companion, companion_weights
        As in :func:`curvdetect.cli.score.run_score`.
    guard : str or Path
        What :func:`curvdetect.cli.fit.run_fit` saved.
    out : str or Path
        A .pt2 file, see :func:`curvdetect.storage.export_guard`.
    images : str or Path, optional
        To compare on, as in :func:`~curvdetect.storage.read_images`; random ones by
        default.
    resize : bool, default=False
        As in :func:`curvdetect.cli.score.run_score`.
    every_stage : bool, default=False
        Whether to export without the early exit.
    device : str, optional
        torch device that the program is made on; the CPU by default.

    Returns
    -------
    dict of str to float
        As :func:`curvdetect.storage.compare_exported` gives it.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    from curvdetect.storage import compare_exported, export_guard

    if Path(out).suffix != ".pt2":
        raise ValueError(f"out must be a .pt2 file; got {out}")
    check_folder(out)
    with results_alone():
        loaded = loaded_guard(
            guard,
            {"factory": factory, "preset": preset},
            companion,
            {"weights": weights, "weights_key": weights_key},
            companion_weights,
            device=device,
        )
        X = _images(loaded, images, resize=resize)
        about = export_guard(loaded, out, early_exit=not every_stage)
        differences = compare_exported(out, loaded, X)
    early = "leave early" if about["early_exit"] else "are all measured to the end"
    print(f"the guard is in {out}; images {early}", file=sys.stderr)
    print(
        f"compared with it on {len(X)} {'random ' * (images is None)}images: scores "
        f"differ by {differences['score']:.3g} at most, labels of "
        f"{differences['label']:g}, flags of {differences['flagged']:g}",
        file=sys.stderr,
    )
    return differences


def _images(
    guard: GuardedClassifier, images: str | Path | None, *, resize: bool
) -> npt.NDArray[Any]:
    """Return what to compare on: pictures, or noise."""
    import numpy as np

    if images is not None:
        return read_all(images, guard.model_, resize=resize)
    shape = (_N_RANDOM, *guard.input_shape_)
    return np.random.default_rng(0).random(shape, dtype=np.float32)
