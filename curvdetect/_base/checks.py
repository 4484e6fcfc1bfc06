"""Checks of parameters that several functions share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from torch import Tensor

__all__ = [
    "check_bounds",
    "check_choice",
    "check_count",
    "check_labels",
    "check_positive",
    "check_share",
    "check_steps",
    "check_vectors",
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
    if (
        isinstance(value, Integral)
        and not isinstance(value, bool)
        and 1 <= int(value) <= (largest or math.inf)
    ):
        return
    limit = "" if largest is None else f" of at most {largest}"
    raise ValueError(
        f"{name} must be a positive integer{limit}{alternative}; got {value!r}"
    )


def check_share(name: str, value: object) -> None:
    """Refuse what is not a number strictly between 0 and 1."""
    if isinstance(value, Real) and 0 < float(value) < 1:
        return
    raise ValueError(f"{name} must be strictly between 0 and 1; got {value!r}")


def check_steps(name: str, value: Any, alternative: str = "") -> None:
    """Refuse what is neither a positive number nor some different ones."""
    if isinstance(value, Real):
        steps: Sequence[Any] = [value]
    else:
        steps = () if isinstance(value, str) or not hasattr(value, "__len__") else value
    numbers = all(isinstance(h, Real) and 0 < float(h) < math.inf for h in steps)
    if not len(steps) or not numbers or len(set(steps)) < len(steps):
        raise ValueError(
            f"{name} must be {alternative}a positive finite number, or a sequence of "
            f"different ones; got {value!r}"
        )


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


def check_vectors(name: str, vectors: Tensor, like: Tensor) -> Tensor:
    """Refuse what is not a set of inputs like the rows of `like`; match its dtype."""
    if vectors.ndim != like.ndim or vectors.shape[1:] != like.shape[1:]:
        raise ValueError(
            f"{name} must have shape (m, *input_shape), {('m', *like.shape[1:])}; got "
            f"{tuple(vectors.shape)}"
        )
    if not len(vectors):
        raise ValueError(f"{name} must hold at least one vector; got none")
    return vectors.to(like)


def check_labels(name: str, label: Tensor, n: int, n_classes: int) -> Tensor:
    """Refuse what is not one class for each of n rows; return it as int64."""
    if label.shape != (n,) or label.is_floating_point():
        raise ValueError(
            f"{name} must hold one integer for each of the {n} rows; got shape "
            f"{tuple(label.shape)} and dtype {label.dtype}"
        )
    if n and not 0 <= int(label.min()) <= int(label.max()) < n_classes:
        raise ValueError(
            f"{name} must be from 0 to {n_classes - 1}; got {int(label.min())} to "
            f"{int(label.max())}"
        )
    return label.long()
