"""Networks in ONNX files, as onnx2torch reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curvdetect._base.extras import require
from curvdetect._base.messages import one_line
from curvdetect._base.stand_ins import check_file
from curvdetect.network._outputs import as_logits
from curvdetect.network.checks import check_input_shape
from curvdetect.network.modules import dtype_of
from curvdetect.network.sources._onnx_operations import converted

__all__ = ["load_onnx", "of_onnx"]

#: What inputs may be, as ONNX calls it.
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")


def load_onnx(path: str | Path) -> nn.Module:
    """Load a network from an ONNX file.

    Parameters
    ----------
    path : str or Path
        The file. Nothing in it is executed but what onnx2torch knows.

    Returns
    -------
    torch.nn.Module
        In eval mode. Whether it takes batches of any size is not known yet, see
        :meth:`curvdetect.TorchModel.from_onnx`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, or holds what onnx2torch does not know, in other versions
        of ONNX's operations neither.
    ImportError
        If onnx2torch is not installed.
    """
    return _converted(_read(path), path)


def of_onnx(
    path: str | Path, input_shape: Sequence[int] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of an ONNX file, and its settings.

    Parameters
    ----------
    path, input_shape
        As in :meth:`curvdetect.TorchModel.from_onnx`.

    Returns
    -------
    tuple of torch.nn.Module and dict
        In eval mode; the settings of a ``TorchModel``: its `input_shape`.
    """
    read = _read(path)
    kind = _input(read, path)
    shape = check_input_shape(input_shape) or _shape(kind, path)
    module = _converted(read, path)
    _check_batches(module, shape, path)
    return module, {"input_shape": shape}


def _read(path: str | Path) -> Any:
    onnx = require("onnx", extra="onnx")
    check_file("model", path)
    try:
        return onnx.load(path)
    except Exception as error:  # whatever a broken file makes of its reader
        raise ValueError(f"model: {path} cannot be read: {one_line(error)}") from error


def _converted(read: Any, path: str | Path) -> nn.Module:
    try:
        return converted(read).eval()
    except Exception as error:  # an operation that it does not know, or a broken graph
        raise ValueError(
            f"model: onnx2torch cannot convert {path}: {one_line(error)}. Nor can it "
            "in other versions of ONNX's operations. torch.onnx.export(..., "
            "opset_version=18), or 17 with dynamo=False, may do without what it does "
            "not know"
        ) from error


def _input(read: Any, path: str | Path) -> Any:
    """Return what the file says of its input."""
    weights = {each.name for each in read.graph.initializer}
    inputs = [each for each in read.graph.input if each.name not in weights]
    if len(inputs) != 1:
        raise ValueError(
            f"model: {path} must take one tensor, a batch of images; it takes "
            f"{[each.name for each in inputs]}"
        )
    types = require("onnx", extra="onnx").TensorProto.DataType
    kind = inputs[0].type.tensor_type
    if (name := types.Name(kind.elem_type)) not in _FLOATS:  # bytes would be 0 to 255
        raise ValueError(
            f"model: {path} must take floating-point numbers ({', '.join(_FLOATS)}); "
            f"it takes {name}"
        )
    return kind


def _shape(kind: Any, path: str | Path) -> tuple[int, ...]:
    """Return the shape of one input, without the axis of the batch."""
    axes = kind.shape.dim
    known = [axis.dim_value for axis in axes][1:]
    if not known or min(known) < 1:
        names = [axis.dim_value or axis.dim_param or "?" for axis in axes]
        raise ValueError(
            f"input_shape must be given: {path} does not say it; it takes inputs of "
            f"shape {tuple(names)}"
        )
    return tuple(known)


def _check_batches(module: nn.Module, shape: tuple[int, ...], path: str | Path) -> None:
    """Refuse a network that was written for a batch of one size, or other inputs."""
    grey = torch.full((3, *shape), 0.5)
    grey = grey.to(dtype_of(module, grey))
    for n in (1, 2, 3):
        try:
            with torch.no_grad():
                as_logits(module(grey[:n]), n)
        except Exception as error:  # whatever the operations make of it
            if n == 1:
                raise ValueError(
                    f"model: {path} must give logits for inputs of shape {shape}; on "
                    f"one it raises {one_line(error)}"
                ) from error
            raise ValueError(
                f"model: {path} must take batches of any size, of inputs of shape "
                f"{shape}; on {n} it raises {one_line(error)}. Export it with a free "
                'axis: torch.onnx.export(..., dynamic_shapes=({0: "n"},)), or '
                'dynamic_axes={"input": {0: "n"}}'
            ) from error
