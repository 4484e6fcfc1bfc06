"""Second derivatives along many directions of every row, and their averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from curvdetect._base.checks import (
    check_choice,
    check_count,
    check_positive,
    check_vectors,
)
from curvdetect._base.rows import batches
from curvdetect.geometry._derivatives import second_derivative, warn_if_piecewise_linear
from curvdetect.geometry._directions import random_directions
from curvdetect.geometry._margins import Margin, take_rows

__all__ = [
    "CurvatureMethod",
    "Estimator",
    "check_sampling",
    "mean_and_error",
    "second_derivatives",
    "shared_directions",
]

#: How second derivatives are taken.
CurvatureMethod: TypeAlias = Literal["forward", "gradient", "autodiff"]

#: How an average over all directions is estimated from a few.
Estimator: TypeAlias = Literal["hutchinson", "xtrace"]


def check_sampling(
    method: str,
    step: float,
    n_directions: int | str,
    estimator: str,
    directions: Tensor | None,
) -> None:
    """Refuse what an estimate from directions cannot use, before any work."""
    check_choice("method", method, get_args(CurvatureMethod))
    check_choice("estimator", estimator, get_args(Estimator))
    check_positive("step", step)
    if directions is None and n_directions != "all":
        check_count("n_directions", n_directions, alternative=' or "all"')
    if estimator == "hutchinson":
        return
    if method == "forward":
        raise ValueError(
            'estimator="xtrace" needs Hessian-vector products: method must be '
            f'"gradient" or "autodiff"; got {method!r}'
        )
    if directions is not None or n_directions == "all" or int(n_directions) < 4:
        raise ValueError(
            'estimator="xtrace" draws its own directions: n_directions must be an '
            "integer of at least 4, and directions None; got "
            f"n_directions={n_directions!r}"
            + ("" if directions is None else " and directions")
        )


def shared_directions(
    n_directions: int | str,
    like: Tensor,
    generator: torch.Generator | None,
    directions: Tensor | None,
) -> Tensor:
    """Return flat unit directions that serve all rows of `like`: given, or random."""
    if directions is None:
        directions = random_directions(
            int(n_directions),
            like.shape[1:],
            generator=generator,
            dtype=like.dtype,
            device=like.device,
        )
    return check_vectors("directions", directions, like).flatten(1)


def second_derivatives(
    function: Margin,
    x: Tensor,
    m: int,
    directions: Callable[[Tensor], Tensor],
    *,
    method: str,
    step: float,
    start: tuple[Tensor, Tensor],
    batch_size: int | None,
    stacklevel: int | None,
) -> Tensor:
    """Return v^T H v of pair p = (row p // m, direction p % m), as (n, m).

    `directions` makes the unit directions of some pairs, shape (len(pairs), d), so that
    no more than a batch of them is held. With `stacklevel`, warns of exact second
    derivatives that are zero wrongly.
    """
    value, gradient = start
    seconds = []
    for pairs in batches(len(x) * m, batch_size, x.device):
        rows = pairs // m
        seconds.append(
            second_derivative(
                take_rows(function, rows),
                x[rows],
                directions(pairs).reshape(-1, *x.shape[1:]),
                method=method,
                step=step,
                value=value[rows],
                gradient=gradient[rows],
            )
        )
    second = torch.cat(seconds).reshape(-1, m)
    asked = method == "autodiff" and bool(second.numel())
    if asked and stacklevel is not None and not bool(second.any()):
        first = torch.arange(len(x), device=x.device) * m
        warn_if_piecewise_linear(
            function,
            x,
            directions(first).reshape_as(x),
            step=step,
            start=start,
            batch_size=batch_size,
            stacklevel=stacklevel + 1,
        )
    return second


def mean_and_error(samples: Tensor, exact: bool = False) -> Tensor:
    """Return the mean of every row and its standard error, as (2, n)."""
    m = samples.shape[1]
    mean = samples.mean(1)
    if exact:
        return torch.stack([mean, torch.zeros_like(mean)])
    # One sample says nothing of its error: 0 / 0 is NaN.
    variance = (samples - mean[:, None]).square().sum(1) / (m - 1)
    return torch.stack([mean, (variance / m).sqrt()])
