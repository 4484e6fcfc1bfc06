"""From tensors, lists and whatever else holds images to arrays, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import issparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

__all__ = ["as_array", "as_flat_array", "dense", "from_numpy", "plain_array"]

#: Any of these makes something an array to NumPy.
_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__")


def as_array(values: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array, in single precision where NumPy lacks its dtype."""
    return (values if values.dtype == torch.float64 else values.float()).cpu().numpy()


def as_flat_array(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """Flatten images to (n_samples, d) and return their shape too.

    What has no more than two dimensions, and data frames, whose columns have names,
    are left to scikit-learn, with None for the shape.
    """
    if hasattr(X, "columns") or issparse(X):
        return X, None
    X = plain_array(X)
    if X.ndim > 2:
        return X.reshape(len(X), math.prod(X.shape[1:])), X.shape[1:]
    return X, None


def plain_array(X: Any, name: str = "X") -> npt.NDArray[Any]:
    """Return what holds numbers as an array, without a copy where that is possible.

    Tensors, lists and tuples of whatever is an array, nested lists, and what NumPy
    takes for an array: files of h5py, memory maps, dask arrays, pictures.

    Raises
    ------
    TypeError
        If it is something else; the message says how to convert it.
    ValueError
        If the images have different shapes, or some values are missing.
    """
    if isinstance(X, Tensor):
        return _of_tensor(X, name)
    if isinstance(X, np.ndarray):
        return _of_array(X, name)
    if isinstance(X, list | tuple):
        return _stacked(X, name)
    try:
        if any(hasattr(X, protocol) for protocol in _PROTOCOLS):
            return _of_array(np.asarray(X), name)
        if hasattr(X, "__dlpack__"):
            return np.from_dlpack(X)
    except (TypeError, RuntimeError, BufferError) as error:  # such as "use .get()"
        raise TypeError(
            f"{name} cannot be read as an array: {error}. Convert it first"
        ) from error
    raise TypeError(
        f"{name} must be an array, a tensor or a list; got {type(X).__name__}. "
        f"Convert it: {_recipe(X, name)}"
    )


def from_numpy(X: Any) -> Tensor:
    """Return an array of numbers as a tensor, without a copy where that is possible.

    Whatever :func:`plain_array` takes.
    """
    X = plain_array(X)
    if X.dtype.kind not in "fiub":
        raise ValueError(f"X must hold numbers; got an array of dtype {X.dtype}")
    # torch takes neither negative strides nor foreign byte orders nor wide unsigned
    # integers, and warns about arrays that it must not write to
    dtype = np.int64 if X.dtype.kind == "u" and X.itemsize > 1 else X.dtype
    dtype = np.dtype(dtype).newbyteorder("=")
    return torch.from_numpy(np.require(X, dtype, ["C", "W"]))


def dense(X: Tensor, name: str = "X") -> Tensor:
    """Refuse a tensor that is sparse, nested or complex, or has no values."""
    if X.is_complex():
        raise ValueError(f"{name} must hold numbers; got a tensor of dtype {X.dtype}")
    if X.layout != torch.strided or X.is_nested:
        raise ValueError(
            f"{name} must be a dense tensor; got layout {X.layout}. Convert it: "
            f"{name}.to_dense()"
        )
    if X.is_meta and type(X) is Tensor:  # a subclass may hold them elsewhere
        raise ValueError(f"{name} must have values; got a tensor on the meta device")
    return X


def _of_tensor(X: Tensor, name: str) -> npt.NDArray[Any]:
    X = dense(X, name).detach()
    X = X.dequantize() if X.is_quantized else X
    known = (torch.float16, torch.float32, torch.float64)
    X = X.float() if X.is_floating_point() and X.dtype not in known else X
    return np.asarray(X.cpu().resolve_conj().resolve_neg().numpy())


def _of_array(X: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if isinstance(X, np.ma.MaskedArray):
        if np.ma.is_masked(X):
            raise ValueError(
                f"{name} must have no masked values; got "
                f"{np.count_nonzero(X.mask)} of {X.size}. Fill them: {name}.filled(...)"
            )
        return np.asarray(X)
    if X.dtype != object:
        return X
    if X.ndim == 0:
        return plain_array(X.item(), name)
    if X.ndim == 1 and len(X) and not _is_scalar(X[0]):
        return _stacked(list(X), name)  # an array of arrays
    return X


def _stacked(items: Sequence[Any], name: str) -> npt.NDArray[Any]:
    """Return a list as an array with one more axis than what it holds."""
    leaf: Any = items
    while isinstance(leaf, list | tuple) and leaf:
        leaf = leaf[0]
    if _is_scalar(leaf) or isinstance(leaf, list | tuple):
        try:
            return np.asarray(items)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} must hold images of one shape; got a list that is no array: "
                f"{error}"
            ) from error
    arrays = [
        np.asarray(item) if _is_scalar(item) else plain_array(item, name)
        for item in items
    ]
    shapes = list(dict.fromkeys(array.shape for array in arrays))
    if len(shapes) > 1:
        pair = len(arrays) == 2 and min(map(len, shapes)) < 2
        raise ValueError(
            f"{name} must hold images of one shape; got {shapes[0]} and {shapes[1]}"
            + " (images with their labels? Give the images alone)" * pair
        )
    return np.stack(arrays)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, Number | str | bytes)


def _recipe(X: Any, name: str) -> str:
    """Say how something becomes an array."""
    if isinstance(X, DataLoader):
        return "for batches of (x, y), X, y = map(torch.cat, zip(*loader))"
    if isinstance(X, Iterator | IterableDataset):
        return f"list({name})"
    if isinstance(X, Dataset):
        return (
            "for pairs of (x, y), X, y = zip(*(dataset[i] for i in "
            "range(len(dataset))))"
        )
    if isinstance(X, Mapping):
        return f"give the array in it, one of {sorted(map(str, X))}"
    if issparse(X):
        return f"{name}.toarray()"
    if hasattr(X, "shape") and hasattr(X, "__getitem__"):
        return f"{name}[...], or numpy.stack(list({name}))"
    return "numpy.asarray, or numpy.stack of a list of images"
