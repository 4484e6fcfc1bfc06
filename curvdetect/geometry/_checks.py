"""Checks of parameters that several functions share, and one warning."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Integral, Real

from torch import Tensor

from curvdetect.geometry._derivatives import margin_value
from curvdetect.geometry._margins import Margin

__all__ = [
    "check_choice",
    "check_count",
    "check_positive",
    "warn_if_piecewise_linear",
]


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse what is not among the allowed values."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {tuple(allowed)}; got {value!r}")


def check_positive(name: str, value: object) -> None:
    """Refuse what is not a positive finite number."""
    if not (isinstance(value, Real) and 0 < float(value) < math.inf):
        raise ValueError(f"{name} must be a positive finite number; got {value!r}")


def check_count(
    name: str, value: object, largest: int | None = None, alternative: str = ""
) -> None:
    """Refuse what is not a positive integer, up to `largest` if given."""
    if isinstance(value, Integral) and 1 <= int(value) <= (largest or math.inf):
        return
    limit = "" if largest is None else f" of at most {largest}"
    raise ValueError(
        f"{name} must be a positive integer{limit}{alternative}; got {value!r}"
    )


def warn_if_piecewise_linear(
    margin: Margin,
    z: Tensor,
    v: Tensor,
    *,
    step: float,
    start: tuple[Tensor, Tensor],
    batch_size: int | None,
    stacklevel: int,
) -> None:
    """Warn if the margin is not flat along the unit vectors `v`, one a row of `z`.

    To be called where every exact second derivative is zero. An affine margin has
    zero derivatives too, and rightly so: what tells the two apart is a second
    difference over a finite step.
    """
    value, gradient = start
    second_difference = -2 * value
    for probe in (z + step * v, z - step * v):
        second_difference += margin_value(margin, probe, batch_size=batch_size)
    scale = 1e-4 * step * gradient.flatten(1).norm(dim=1)
    if bool((second_difference.abs() > scale).any()):
        warnings.warn(
            "every exact second derivative is zero, but the function is not flat at "
            f"step={step:g}: it is piecewise linear (ReLU, max-pooling). Use "
            'method="forward" or "gradient", which measure curvature at a finite step.',
            UserWarning,
            stacklevel=stacklevel + 1,
        )
