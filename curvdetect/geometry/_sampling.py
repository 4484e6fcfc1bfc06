"""How averages over all directions are estimated from some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice, check_count, check_vectors
from curvdetect.geometry._directions import random_directions

__all__ = ["Estimator", "Sampling", "mean_and_error"]

#: How an average over all directions is estimated from a few.
Estimator: TypeAlias = Literal["hutchinson", "xtrace"]


@dataclass(frozen=True)
class Sampling:
    """Which directions an average is taken over: all axes, given or random ones."""

    n_directions: int | Literal["all"]
    estimator: Estimator
    generator: torch.Generator | None
    directions: Tensor | None

    def check(self, method: str) -> None:
        """Refuse what an estimate cannot use, before any work."""
        given = self.directions is not None
        check_choice("estimator", self.estimator, get_args(Estimator))
        if not given and self.n_directions != "all":
            check_count("n_directions", self.n_directions, alternative=' or "all"')
        if self.estimator == "hutchinson":
            return
        if method == "forward":
            raise ValueError(
                'estimator="xtrace" needs Hessian-vector products: method must be '
                f'"gradient" or "autodiff"; got {method!r}'
            )
        if given or self.n_directions == "all" or int(self.n_directions) < 4:
            raise ValueError(
                'estimator="xtrace" draws its own directions: n_directions must be an '
                "integer of at least 4, and directions None; got "
                f"n_directions={self.n_directions!r}"
                + (" and directions" if given else "")
            )

    @property
    def exact(self) -> bool:
        """Whether the average is over a whole basis."""
        return self.directions is None and self.n_directions == "all"

    def shared(self, like: Tensor) -> Tensor:
        """Return flat unit directions that serve all rows of `like`."""
        directions = self.directions
        if directions is None:
            directions = random_directions(
                int(self.n_directions),
                like.shape[1:],
                generator=self.generator,
                dtype=like.dtype,
                device=like.device,
            )
        return check_vectors("directions", directions, like).flatten(1)


def mean_and_error(samples: Tensor, exact: bool = False) -> Tensor:
    """Return the mean of every row and its standard error, a constant, as (2, n)."""
    m = samples.shape[1]
    mean = samples.mean(1)
    if exact:
        return torch.stack([mean, torch.zeros_like(mean)])
    # One sample says nothing of its error: 0 / 0 is NaN.
    apart = samples.detach() - mean.detach()[:, None]
    variance = apart.square().sum(1) / (m - 1)
    return torch.stack([mean, (variance / m).sqrt()])
