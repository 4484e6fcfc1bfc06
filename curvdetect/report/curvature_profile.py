"""How the boundaries around a few images are curved: a table, a picture, a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect._base.extras import require
from curvdetect._base.files import written_text
from curvdetect.geometry import principal_curvatures, profile_statistics
from curvdetect.network import Boundaries, TorchModel, find_nearest_boundaries
from curvdetect.network.arrays import as_array
from curvdetect.network.class_names import named
from curvdetect.plotting import CurvatureProfileDisplay
from curvdetect.report._saving import save_picture
from curvdetect.storage.tables import as_json

__all__ = ["report_curvature_profile"]

#: Above so many values an image, only the leading curvatures: all of them take as many
#: gradients as there are values, and a matrix.
_MAX_DENSE = 4096
_N_LEADING = 10
#: Of these: products of differences are linear to the order of the step only.
_TOL = 0.01
#: Of columns that have other titles than names.
_TITLES = {
    "label": "class",
    "label_name": "name",
    "other": "other class",
    "other_name": "other name",
}


def report_curvature_profile(
    model: TorchModel,
    X: npt.NDArray[np.float32],
    names: Sequence[str],
    *,
    out: Path,
    n_boundaries: int = 3,
    step: float = 0.1,
    file: IO[str] | None = None,
) -> list[dict[str, Any]]:
    """Measure principal curvatures around some images; print, write and draw them.

    Parameters
    ----------
    model : TorchModel
        The network.
    X : ndarray of shape (n, *input_shape)
        Images.
    names : sequence of n str
        What they are called.
    out : Path
        Folder for curvature_profile.json and .png; made if it is missing.
    n_boundaries : int, default=3
        Around each, the nearest first.
    step : float, default=0.1
        h of :func:`curvdetect.geometry.principal_curvatures`.
    file : text file, optional
        Where the table is printed; standard output by default.

    Returns
    -------
    list of dict
        A row for each boundary: the image, its class, the other one (with their names
        where the model has any), the distance, and the principal curvatures there, in
        1 / input units (all d - 1 of them up to 4,096 values an image, the ten largest
        in size above that) with their mean and how many are near zero. NaN where there
        is no boundary; the last two also where it is flat.

    Raises
    ------
    ValueError
        If anything is not what it must be.
    """
    nearest = find_nearest_boundaries(model, X, n_boundaries=n_boundaries)
    dense = math.prod(X.shape[1:]) <= _MAX_DENSE
    curvatures = _curvatures(model, nearest, step=step, dense=dense)
    columns = {
        "image": np.repeat(names, n_boundaries),
        **_classes(nearest, model.class_names),
        "distance": as_array(nearest.distances.where(nearest.found, torch.nan)),
        **_described(curvatures, dense=dense),
    }
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*(values.tolist() for values in columns.values()), strict=True)
    ]
    _print(rows, file)
    values = as_array(curvatures)
    rows = [
        {**row, "curvatures": of_row}
        for row, of_row in zip(rows, values.tolist(), strict=True)
    ]
    out.mkdir(parents=True, exist_ok=True)
    settings = {"step": step, "all_curvatures": dense, "input_shape": X.shape[1:]}
    written = as_json({**settings, "boundaries": rows}, indent=1)
    written_text(out / "curvature_profile.json", written + "\n")
    _draw(values.reshape(len(X), n_boundaries, -1), out, dense=dense)
    return rows


def _classes(
    nearest: Boundaries, class_names: Sequence[str] | None
) -> dict[str, npt.NDArray[Any]]:
    """Return the classes on both sides of each boundary, and their names if known."""
    margin, columns = nearest.margin, {}
    for column, classes in (("label", margin.predicted), ("other", margin.other)):
        columns[column] = classes.cpu().numpy()
        names = named(columns[column], class_names)
        if names is not None:
            columns[f"{column}_name"] = names
    return columns


def _curvatures(
    model: TorchModel, nearest: Boundaries, *, step: float, dense: bool
) -> Tensor:
    """Measure the curvatures of every boundary, NaN where there is none."""
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
    return curvatures.where(nearest.found[:, None], torch.nan) + 0.0  # no -0


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


def _print(rows: list[dict[str, Any]], file: IO[str] | None) -> None:
    """Print a table."""
    lines = [[_TITLES.get(name, name.replace("_", " ")) for name in rows[0]]]
    for row in rows:
        lines.append(
            [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        print("  ".join(cell.rjust(width) for cell, width in cells), file=file)


def _draw(curvatures: npt.NDArray[Any], folder: Path, *, dense: bool) -> None:
    pyplot = require("matplotlib.pyplot", extra="plot")
    display = CurvatureProfileDisplay.from_predictions(curvatures)
    what = "all" if dense else f"the {curvatures.shape[2]} largest in size"
    display.ax_.set_title(f"mean over {len(curvatures)} images; {what}")
    save_picture(
        display.figure_,
        folder / "curvature_profile.png",
        dpi=150,
        bbox_inches="tight",
    )
    pyplot.close(display.figure_)
