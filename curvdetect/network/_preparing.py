"""What is done to an input before a module is given it: clamped, then normalised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["clamped", "lies_outside", "normalised"]


#: In parts of the range: so far inside the bounds values are moved, that a module which
#: clamps its input itself still has a gradient at black and white.
_INWARDS = 1e-6


def clamped(x: Tensor, bounds: tuple[float, float], *, inside: bool) -> Tensor:
    """Move values outside the bounds onto them, or with `inside` just within.

    The gradient is 1 from bound to bound, the bounds included, and 0 outside: black
    and white pixels keep theirs, which ``torch.clamp`` promises in no version.
    """
    low, high = bounds
    x = x.masked_fill(x < low, low).masked_fill(x > high, high)
    if not inside:
        return x
    inwards = _INWARDS * (high - low)
    return x + (x.clamp(low + inwards, high - inwards) - x).detach()


def lies_outside(x: Tensor, bounds: tuple[float, float]) -> bool:
    """Say whether any value lies outside the bounds."""
    low, high = bounds
    return bool(((x < low) | (x > high)).any())


def normalised(
    x: Tensor,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    kept: dict[Any, Any],
) -> Tensor:
    """Return (x - mean) / std, per channel.

    `kept` holds what was copied to a device: once, not at every call.
    """
    if mean is not None:
        x = x - _per_channel(mean, x, kept)
    if std is not None:
        x = x / _per_channel(std, x, kept)
    return x


def _per_channel(values: tuple[float, ...], x: Tensor, kept: dict[Any, Any]) -> Tensor:
    shape = (-1, *[1] * (x.ndim - 2))
    if x.device.type == "cpu" or torch.compiler.is_compiling():
        return x.new_tensor(values).reshape(shape)
    key = values, x.device, x.dtype
    if key not in kept:
        with torch.inference_mode(False):  # or it could never be part of a graph
            kept[key] = torch.tensor(values, dtype=x.dtype).to(x.device)
    constant: Tensor = kept[key]
    return constant.reshape(shape)
