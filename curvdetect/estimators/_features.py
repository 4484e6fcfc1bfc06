"""From images to columns: measure a batch at a time, then arrange what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array
from curvdetect.signals import (
    Around,
    BoundarySignal,
    Measured,
    Setup,
    Signal,
    arranged_by_class,
    arranged_by_distance,
    measure_signals,
)

__all__ = ["arrange", "measure_all", "names_of_columns"]


def measure_all(
    images: npt.NDArray[Any], settings: dict[str, Any], *, verbose: int
) -> Measured:
    """Measure all images; a function of them and the settings, as a cache needs it."""
    model, setup = settings["model"], settings["setup"]
    signals, by_distance = settings["signals"], settings["by_distance"]
    parts = []
    with model.evaluating():
        for batch in _batches(model, torch.from_numpy(images), setup, signals, verbose):
            around = Around(model, batch, setup)
            parts.append(measure_signals(around, signals, by_distance=by_distance))
    # Off the device a batch at a time would be a wait a batch.
    return Measured(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))


def _batches(
    model: TorchModel,
    images: Tensor,
    setup: Setup,
    signals: Sequence[Signal],
    verbose: int,
) -> Iterator[Tensor]:
    """Yield batches of images whose boundaries fill the network's batches."""
    rows = model.rows_per_batch(images[:1])
    if any(isinstance(signal, BoundarySignal) for signal in signals):
        # Twice, since the search narrows down to the rows that are still open.
        rows = max(1, 2 * rows // max(setup.n_boundaries, 1))
    with tqdm(
        total=len(images), unit="image", desc="measure", disable=not verbose
    ) as bar:
        for batch in model.split(images, rows):
            yield batch
            bar.update(len(batch))


def arrange(
    measured: Measured,
    signals: Sequence[Signal],
    layout: str,
    diagonal: float,
    dtype: npt.DTypeLike,
) -> npt.NDArray[Any]:
    """Return the columns, signal by signal in their order."""
    n, n_classes = measured.logits.shape
    if layout == "class":
        blocks = arranged_by_class(measured, n_classes)
    else:
        of_boundaries = (s for s in signals if isinstance(s, BoundarySignal))
        blanks = [s.blank(diagonal) for s in of_boundaries for _ in s.blocks()]
        blocks = arranged_by_distance(measured, torch.tensor(blanks))
    columns, block, column = [], 0, 0
    for signal in signals:
        if isinstance(signal, BoundarySignal):
            end = block + len(signal.blocks())
            columns.append(blocks[:, block:end].flatten(1))
            block = end
        else:
            end = column + len(signal.columns(n_classes))
            columns.append(measured.images[:, column:end])
            column = end
    return np.ascontiguousarray(as_array(torch.cat(columns, dim=1)), dtype=dtype)


def names_of_columns(
    signals: Sequence[Signal], layout: str, n_classes: int, n_boundaries: int
) -> list[str]:
    """Name what :func:`arrange` returns."""
    width = n_classes if layout == "class" else n_boundaries
    names: list[str] = []
    for signal in signals:
        if isinstance(signal, BoundarySignal):
            for block in signal.blocks():
                names += [f"{block}_{layout}{k}" for k in range(width)]
        else:
            names += signal.columns(n_classes)
    return names
