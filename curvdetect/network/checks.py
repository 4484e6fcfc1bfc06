"""What can be wrong with a wrapped network or its inputs, with a message for each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "check_batch_size",
    "check_bounds",
    "check_channels",
    "check_clamp",
    "check_defined",
    "check_finite",
    "check_input_shape",
    "check_logits",
    "check_repeatable",
    "check_row_by_row",
    "check_shape",
    "check_std",
    "check_within",
    "outside_bounds",
    "warn_if_imprecise",
    "warn_if_probabilities",
]


def check_input_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the shape as a tuple."""
    if shape is None:
        return None
    try:
        result = tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        result = ()
    if not result or min(result) < 1:
        raise ValueError(
            "input_shape must be a tuple of positive integers such as (3, 32, 32), or "
            f"None; got {shape!r}"
        )
    return result


def check_bounds(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the bounds as two numbers."""
    if bounds is None:
        return None
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not low < high:
        raise ValueError(
            "bounds must be a pair (low, high) with low < high, or None; got "
            f"{bounds!r}"
        )
    return low, high


def check_channels(
    values: float | Sequence[float] | None,
    name: str,
    input_shape: tuple[int, ...] | None,
) -> tuple[float, ...] | None:
    """Return one number, or one per channel, as a tuple."""
    if values is None:
        return None
    result = tuple(float(v) for v in np.ravel(values))
    n_channels = None if input_shape is None else input_shape[0]
    if len(result) != 1 and n_channels is not None and len(result) != n_channels:
        raise ValueError(
            f"{name} must be one number, or one per channel ({n_channels}); "
            f"got {len(result)}"
        )
    if not all(map(math.isfinite, result)):
        raise ValueError(f"{name} must be finite; got {values!r}")
    return result


def check_std(std: tuple[float, ...] | None) -> None:
    """Refuse standard deviations that are not positive."""
    if std is not None and min(std) <= 0:
        raise ValueError(f"std must be positive; got {std!r}")


def check_batch_size(batch_size: int | None) -> None:
    """Refuse what is neither None nor a number of rows."""
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"batch_size must be a positive integer or None; got {batch_size!r}"
        )


def check_clamp(clamp: bool, bounds: tuple[float, float] | None) -> None:
    """Refuse to clamp where there is nothing to clamp to."""
    if not isinstance(clamp, bool):
        raise ValueError(f"clamp must be True or False; got {clamp!r}")
    if clamp and bounds is None:
        raise ValueError(
            "clamp=True needs bounds=(low, high) to clamp to; got bounds=None"
        )


def check_shape(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> None:
    """Refuse arrays that are neither inputs of that shape nor the same flattened."""
    d = math.prod(input_shape)
    if shape[1:] not in (input_shape, (d,)):
        raise ValueError(
            f"X must have shape (n_samples, {', '.join(map(str, input_shape))}) "
            f"or (n_samples, {d}); got {shape}"
        )


def check_within(low: float, high: float, bounds: tuple[float, float]) -> None:
    """Refuse inputs outside the bounds, with a guess at the cause."""
    tolerance = 1e-5 * (bounds[1] - bounds[0])
    if low >= bounds[0] - tolerance and high <= bounds[1] + tolerance:
        return
    if bounds == (0.0, 1.0) and low >= 0 and 1.5 < high <= 255:
        hint = "Are these bytes? Divide by 255."
    elif bounds == (0.0, 1.0) and low < 0:
        hint = (
            "Are they normalised already? Undo it, and give mean and std to TorchModel."
        )
    else:
        hint = "Set bounds in TorchModel; bounds=None switches this check off."
    raise ValueError(
        f"X must lie within the model's bounds {bounds}; got values from {low:g} to "
        f"{high:g}. {hint}"
    )


def outside_bounds(bounds: tuple[float, float] | None, raised: Exception) -> ValueError:
    """Make the error for a module that raised where it was asked outside its bounds."""
    return ValueError(
        f"the module raised {type(raised).__name__} ({raised}) for inputs outside its "
        f"bounds {bounds}, and not within. {_CLAMP}"
    )


def check_defined(undefined: Tensor) -> None:
    """Refuse a module that gives NaN at some of the points where it was measured."""
    n = int(undefined.sum())
    if n:
        raise ValueError(
            f"the module gave NaN or infinity at {n} of {undefined.numel()} points "
            f"near the images, where it is measured. {_CLAMP}"
        )


_CLAMP = (
    "Probes and searches step outside the bounds: TorchModel(..., clamp=True) gives "
    "the module the nearest values within"
)


def check_logits(logits: Any, n: int) -> None:
    """Refuse an output that is not one finite row of logits per input."""
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the module must return a tensor of logits; got {type(logits).__name__}"
        )
    if logits.ndim != 2 or len(logits) != n:
        raise ValueError(
            "the module must return logits of shape (n_samples, n_classes); got "
            f"{tuple(logits.shape)} for {n} samples"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the module must have at least two classes, one logit each; got one. A "
            "network with a single output s for two classes has the logits (0, s)."
        )
    check_finite(logits)


def check_finite(logits: Tensor) -> None:
    """Refuse logits that are NaN or infinite."""
    if not bool(logits.isfinite().all()):
        raise ValueError(
            "the module's logits must be finite; got NaN or infinity (a broken weight "
            "file, or inputs of the wrong scale?)"
        )


def check_repeatable(first: Tensor, second: Tensor) -> None:
    """Refuse a network that answers differently twice."""
    if not _close(first, second):
        raise ValueError(
            "the module must give the same answer twice; two calls on the same inputs "
            f"differ by up to {float((first - second).abs().max()):g} logits, in eval "
            "mode. Switch off its randomness (dropout by hand, random augmentation)."
        )


def check_row_by_row(alone: Tensor, in_batch: Tensor) -> None:
    """Refuse a network that mixes the rows of a batch."""
    if not _close(alone, in_batch):
        raise ValueError(
            "the module must treat each input for itself; the logits of one input "
            "change with the others in its batch (batch normalisation without "
            "running statistics?)"
        )


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to what rounding and the choice of kernels may change."""
    tolerance = 2e3 * torch.finfo(a.dtype).eps * float(a.abs().max())
    return bool(((a - b).abs() <= tolerance).all())


def warn_if_probabilities(logits: Tensor) -> None:
    """Warn about outputs that look like a softmax."""
    sums = logits.sum(dim=1)
    if bool((logits >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        warnings.warn(
            "the module seems to return probabilities; curvatures are defined on "
            "logits, and softmax flattens them. Leave the softmax out.",
            UserWarning,
            stacklevel=3,
        )


def warn_if_imprecise(logits: Tensor) -> None:
    """Warn about half precision."""
    if logits.dtype not in (torch.float32, torch.float64):
        warnings.warn(
            f"the module computes in {logits.dtype}, in which second differences are "
            "mostly rounding. Use module.float().",
            UserWarning,
            stacklevel=3,
        )
