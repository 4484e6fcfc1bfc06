"""What can be wrong with a wrapped network or its inputs, with a message for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from curvdetect._base.warn import warn

__all__ = [
    "FEW_RIGHT",
    "check_batch_size",
    "check_channels",
    "check_clamp",
    "check_class_names",
    "check_defined",
    "check_finite",
    "check_input_shape",
    "check_n_class_names",
    "check_shape",
    "check_std",
    "check_weights",
    "check_within",
    "doubts_of_labels",
    "outside_bounds",
    "tolerated",
    "warn_of_units",
]

#: Below this share of right labels, something is wrong with them or the network.
FEW_RIGHT = 0.5


def check_input_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the shape as a tuple."""
    if shape is None:
        return None
    try:
        result = tuple(int(n) for n in shape)
    except (TypeError, ValueError, OverflowError):
        result = ()
    if not result or min(result) < 1:
        raise ValueError(
            "input_shape must be a tuple of positive integers such as (3, 32, 32), or "
            f"None; got {shape!r}"
        )
    return result


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


def check_weights(module: nn.Module) -> None:
    """Refuse weights that have no values, or of which torch takes no gradient."""
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(weight):
            raise ValueError(
                f"the module must be complete; {name} has no shape yet (a lazy layer). "
                "Call the module once on an example"
            )
        if weight.is_meta:
            raise ValueError(
                f"the module must have values; {name} is on the meta device. Load its "
                "weights"
            )
        if weight.is_inference():
            raise ValueError(
                f"the module's weights must be ordinary tensors; {name} was made in "
                "inference mode, where torch takes no gradient. Make or load the "
                "network outside of it"
            )


def warn_of_units(
    name: str,
    values: tuple[float, ...] | None,
    bounds: tuple[float, float] | None,
) -> None:
    """Warn of a mean or standard deviation that is in other units than the bounds."""
    if values is None or bounds is None:
        return
    low, high = bounds
    reach = 3 * (high - low)
    if any(not low - reach <= value <= high + reach for value in values):
        warn(
            f"{name}={values} does not belong to images from {low:g} to {high:g}: are "
            "these in bytes? Divide by 255, or set bounds to the units of the images. "
            "As it is, the network will see all images alike."
        )


def check_batch_size(batch_size: int | None) -> None:
    """Refuse what is neither None nor a number of rows."""
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"batch_size must be a positive integer or None; got {batch_size!r}"
        )


def check_clamp(clamp: object, bounds: tuple[float, float] | None) -> None:
    """Refuse to clamp where there is nothing to clamp to."""
    if not isinstance(clamp, bool) and clamp != "inside":
        raise ValueError(f'clamp must be True, False or "inside"; got {clamp!r}')
    if clamp and bounds is None:
        raise ValueError(
            f"clamp={clamp!r} needs bounds=(low, high) to clamp to; got bounds=None"
        )


def check_class_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names as a tuple."""
    if names is None:
        return None
    listed = () if isinstance(names, str) or not np.iterable(names) else tuple(names)
    if not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError(
            "class_names must be a sequence of strings, one a logit, or None; got "
            f"{names!r}"
        )
    return tuple(str(name) for name in listed)  # no strings of NumPy: files hold them


def check_n_class_names(names: tuple[str, ...] | None, n_classes: int) -> None:
    """Refuse more or fewer names than there are logits."""
    if names is not None and len(names) != n_classes:
        raise ValueError(
            f"class_names must have a name for each of the {n_classes} logits; got "
            f"{len(names)}"
        )


def check_shape(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> None:
    """Refuse arrays that are neither inputs of that shape nor the same flattened."""
    d = math.prod(input_shape)
    if shape[1:] not in (input_shape, (d,)):
        raise ValueError(
            f"X must have shape (n_samples, {', '.join(map(str, input_shape))}) "
            f"or (n_samples, {d}); got {shape}"
        )


def tolerated(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return what inputs may reach: the bounds, and a little for rounding."""
    tolerance = 1e-5 * (bounds[1] - bounds[0])
    return bounds[0] - tolerance, bounds[1] + tolerance


def check_within(low: float, high: float, bounds: tuple[float, float]) -> None:
    """Refuse inputs outside the bounds, with a guess at the cause."""
    least, largest = tolerated(bounds)
    if low >= least and high <= largest:
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


def doubts_of_labels(
    predicted: npt.NDArray[np.int64], y: npt.NDArray[Any], n_classes: int
) -> str:
    """Ask what may be wrong where a network gets few labels right."""
    enough = max(int(np.sum(predicted == y)), FEW_RIGHT * len(y))
    off_by_one = {"y - 1": y.astype(float) - 1, "y + 1": y.astype(float) + 1}
    for name, shifted in off_by_one.items():
        n_right = int(np.sum(predicted == shifted))
        if n_right > enough:
            return (
                f"are the labels off by one? They must be 0 to {n_classes - 1}; with "
                f"{name} it would be {n_right}"
            )
    return (
        f"do the labels (0 to {n_classes - 1}, the positions of the logits) and the "
        "preprocessing (bounds, mean, std) belong to it?"
    )


def check_finite(logits: Tensor) -> None:
    """Refuse logits that are NaN or infinite."""
    if not bool(logits.isfinite().all()):
        raise ValueError(
            "the module's logits must be finite; got NaN or infinity (a broken weight "
            "file, or inputs of the wrong scale?)"
        )
