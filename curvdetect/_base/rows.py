"""What is done row by row: a run of rows at a time, a number for each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from curvdetect._base.checks import check_count

__all__ = ["batches", "dot", "per_row"]


def batches(n: int, batch_size: int | None, device: torch.device) -> Iterator[Tensor]:
    """Yield the positions 0 .. n-1 in runs of at most `batch_size`."""
    if batch_size is not None:
        check_count("batch_size", batch_size, alternative=" or None")
    yield from torch.arange(n, device=device).split(batch_size or max(n, 1))


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Give a number per row the axes that multiply whole rows."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of every row."""
    return (a * b).flatten(1).sum(1)
