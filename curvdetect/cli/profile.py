"""``curvdetect profile``: the boundaries around a few images of your own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect._base.checks import check_count, check_positive
from curvdetect._base.extras import require
from curvdetect.cli.own_model import reported
from curvdetect.geometry import principal_curvatures, profile_statistics
from curvdetect.network import TorchModel, nearest_boundaries
from curvdetect.network.loading import load_module
from curvdetect.network.model import as_array
from curvdetect.storage import read_images
from curvdetect.storage.tables import as_json

__all__ = ["run_profile"]

#: Above so many values an image, only the leading curvatures: all of them take as many
#: gradients as there are values, and a matrix.
_MAX_DENSE = 4096
_N_LEADING = 10
#: Of these: products of differences are linear to the order of the step only.
_TOL = 0.01
#: Of columns that have other titles than names.
_TITLES = {"label": "class", "other": "other class"}


def run_profile(
    factory: str,
    images: str | Path,
    *,
    out: str | Path,
    input_shape: tuple[int, int, int],
    weights: str | Path | None = None,
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
    factory, weights
        As in :func:`curvdetect.network.loading.load_module`.
    images : str or Path
        As in :func:`curvdetect.storage.read_images`.
    out : str or Path
        Folder for profile.json and profile.png.
    input_shape : (int, int, int)
        Channels, height and width.
    mean, std : tuple of float, optional
        Normalisation of the network, a number for each channel or one for all.
    n_images : int, default=5
        The first so many images.
    n_boundaries : int, default=3
        Around each, the nearest first.
    step : float, default=0.1
        h of :func:`curvdetect.geometry.principal_curvatures`.
    resize : bool, default=False
        As in :func:`curvdetect.storage.read_images`.
    device : str, optional
        torch device.

    Returns
    -------
    list of dict
        A row for each boundary: the image, its class, the other one, the distance, and
        the principal curvatures there, in 1 / input units (all d - 1 of them up to
        4,096 values an image, the ten largest in size above that) with their mean and
        how many are near zero. NaN where there is no boundary; the last two also where
        it is flat.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    require("matplotlib", extra="plot")  # before any long work
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder; {out} is a file")
    check_count("n_images", n_images)
    check_positive("step", step)
    model = TorchModel(
        load_module(factory, weights),
        input_shape=input_shape,
        mean=mean,
        std=std,
        device=device,
    )
    names, X = _first(images, input_shape, resize, n_images)
    nearest = nearest_boundaries(model, X, n_boundaries=n_boundaries)
    dense = math.prod(input_shape) <= _MAX_DENSE
    with model.evaluating():
        curvatures = principal_curvatures(
            nearest.margin,
            nearest.points,
            k=None if dense else _N_LEADING,
            step=step,
            tol=_TOL,
            directions=False,
            batch_size=model.rows_per_batch(nearest.images[:1]),
        ).values
    curvatures = curvatures.where(nearest.found[:, None], torch.nan) + 0.0  # no -0
    columns = {
        "image": np.repeat(names, n_boundaries),
        "label": nearest.margin.predicted.cpu().numpy(),
        "other": nearest.margin.other.cpu().numpy(),
        "distance": as_array(nearest.distances.where(nearest.found, torch.nan)),
        **_described(curvatures, dense=dense),
    }
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*(values.tolist() for values in columns.values()), strict=True)
    ]
    _print(rows)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"step": step, "all_curvatures": dense, "input_shape": input_shape}
    listed = as_array(curvatures).tolist()
    for row, values in zip(rows, listed, strict=True):
        row["curvatures"] = values
    written = as_json({**settings, "boundaries": rows}, indent=1)
    (folder / "profile.json").write_text(written + "\n")
    _draw(as_array(curvatures).reshape(len(X), n_boundaries, -1), folder, dense=dense)
    return rows


def _first(
    images: str | Path, input_shape: tuple[int, int, int], resize: bool, n: int
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Read the first n images that can be used."""
    names: list[str] = []
    X = []
    for batch in reported(
        read_images(images, input_shape, resize=resize, batch_size=max(n, 16))
    ):
        names += batch.names
        X.append(batch.X)
        if len(names) >= n:
            break
    if not names:
        raise ValueError(f"images: none of those in {images} could be used")
    return names[:n], np.concatenate(X)[:n]


def _described(curvatures: Tensor, *, dense: bool) -> dict[str, npt.NDArray[Any]]:
    described = {"largest": curvatures.amax(1), "smallest": curvatures.amin(1)}
    if dense:  # of ten out of many, these would say nothing
        statistics = profile_statistics(curvatures)
        described = {
            "mean": curvatures.mean(1),
            **described,
            "near_zero": statistics.near_zero,
            "effective_rank": statistics.effective_rank,
        }
    return {name: as_array(values) for name, values in described.items()}


def _print(rows: list[dict[str, Any]]) -> None:
    """Print a table on standard output."""
    lines = [[_TITLES.get(name, name.replace("_", " ")) for name in rows[0]]]
    for row in rows:
        lines.append(
            [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        print("  ".join(cell.rjust(width) for cell, width in cells))


def _draw(curvatures: npt.NDArray[Any], folder: Path, *, dense: bool) -> None:
    from curvdetect.plotting import CurvatureProfileDisplay

    pyplot = require("matplotlib.pyplot", extra="plot")
    display = CurvatureProfileDisplay.from_predictions(curvatures)
    what = "all" if dense else f"the {curvatures.shape[2]} largest in size"
    display.ax_.set_title(f"mean over {len(curvatures)} images; {what}")
    display.figure_.savefig(folder / "profile.png", dpi=150, bbox_inches="tight")
    pyplot.close(display.figure_)
