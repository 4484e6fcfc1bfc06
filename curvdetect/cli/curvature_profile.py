"""``curvdetect curvature-profile``: the boundaries around a few images of your own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvdetect.cli._network import add_input, add_model, add_weights, loaded_model
from curvdetect.cli._options import add_command, add_device
from curvdetect.cli._pictures import add_pictures, check_any, read
from curvdetect.cli._streams import results_alone

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from curvdetect import TorchModel

__all__ = ["run_curvature_profile"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "curvature-profile",
        run_curvature_profile,
        help="show how the decision boundaries around some images curve",
        description=(
            "Measure the principal curvatures of the decision boundaries near some "
            "images. Prints a table; writes curvature_profile.json and .png. Needs the "
            "extra plot, and vision for pictures."
        ),
    )
    add_model(parser)
    add_pictures(parser)
    add_device(parser, default="cpu")
    add_weights(parser)
    add_input(parser)
    parser.add_argument(
        "--n-images",
        type=int,
        default=5,
        help="number of images, the first ones (default: %(default)s)",
    )
    parser.add_argument(
        "--n-boundaries",
        type=int,
        default=3,
        help="number of boundaries around each, the nearest (default: %(default)s)",
    )
    parser.add_argument(
        "--step",
        type=float,
        default=0.1,
        help="finite step, an L2 length in input units (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("curvature-profile"),
        help="folder for the two files (default: %(default)s)",
    )
    return parser


def run_curvature_profile(
    factory: str | None,
    images: str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    n_images: int = 5,
    n_boundaries: int = 3,
    step: float = 0.1,
    resize: bool = False,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Measure principal curvatures around some images; print, write and draw them.

    Parameters
    ----------
    factory, weights, weights_key
        As in :func:`curvdetect.network.load_module`; `factory` is None for a preset.
    images : str or Path
        As in :func:`curvdetect.storage.read_images`.
    out : str or Path
        Folder for curvature_profile.json and curvature_profile.png.
    preset : str, optional
        Instead of `factory`: timm:NAME, torchvision:NAME,
        transformers:NAME_OR_FOLDER or onnx:FILE, used as its library says.
    input_shape : (int, int, int), optional
        Channels, height and width; needed for `factory`. For a preset, instead of
        the library's.
    mean, std : tuple of float, optional
        Normalisation of the network, a number for each channel or one for all; that of
        the library for a preset.
    n_images : int, default=5
        The first so many images.
    n_boundaries : int, default=3
        Around each, the nearest first.
    step : float, default=0.1
        h of :func:`curvdetect.geometry.principal_curvatures`.
    resize : bool, default=False
        As in :func:`~curvdetect.storage.read_images`; a network that has a preparation
        of its own resizes pictures as that says.
    device : str, optional
        torch device; the CPU by default.

    Returns
    -------
    list of dict
        A row for each boundary: what is in curvature_profile.json.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    from curvdetect._base.checks import check_count, check_positive
    from curvdetect._base.extras import require
    from curvdetect.report.curvature_profile import report_curvature_profile

    require("matplotlib", extra="plot")  # before any long work
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder; {out} is a file")
    check_count("n_images", n_images)
    check_positive("step", step)
    model = loaded_model(
        factory,
        preset,
        weights=weights,
        weights_key=weights_key,
        input_shape=input_shape,
        mean=mean,
        std=std,
        device=device,
    )
    names, X = _first(images, model, resize, n_images)
    with results_alone() as file:
        return report_curvature_profile(
            model,
            X,
            names,
            out=folder,
            n_boundaries=n_boundaries,
            step=step,
            file=file,
        )


def _first(
    images: str | Path, model: TorchModel, resize: bool, n: int
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Read the first n images that can be used."""
    import numpy as np

    names: list[str] = []
    X = []
    for batch in read(images, model, resize=resize, batch_size=max(n, 16)):
        names += batch.names
        X.append(batch.X)
        if len(names) >= n:
            break
    check_any(len(names), images)
    return names[:n], np.concatenate(X)[:n]
