"""From tensors to arrays and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["as_array", "as_flat_array", "from_numpy"]


def as_array(values: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array, in single precision where NumPy lacks its dtype."""
    return (values if values.dtype == torch.float64 else values.float()).cpu().numpy()


def as_flat_array(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """Flatten images to (n_samples, d) and return their shape too.

    What is not an array of images is left to scikit-learn, with None for the shape.
    """
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    if isinstance(X, np.ndarray) and X.ndim > 2:
        return X.reshape(len(X), math.prod(X.shape[1:])), X.shape[1:]
    return X, None


def from_numpy(X: npt.NDArray[Any]) -> Tensor:
    """Return an array of numbers as a tensor, without a copy where that is possible."""
    if X.dtype.kind not in "fiub":
        raise ValueError(f"X must hold numbers; got an array of dtype {X.dtype}")
    # torch takes neither negative strides nor foreign byte orders nor wide unsigned
    # integers, and warns about arrays that it must not write to
    dtype = np.int64 if X.dtype.kind == "u" and X.itemsize > 1 else X.dtype
    dtype = np.dtype(dtype).newbyteorder("=")
    return torch.from_numpy(np.require(X, dtype, ["C", "W"]))
