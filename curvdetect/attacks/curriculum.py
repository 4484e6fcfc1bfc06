"""The attacks that a guard learns from: many budgets of two kinds, scaled to a network.

Nothing in it is chosen for a data set. Budgets go from what the network's own minimal
perturbations need up to 64/255 of the input range on every value, by factors of two; of
eight for large images, see :mod:`curvdetect.attacks.effort`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from curvdetect.attacks.convention import Attack
from curvdetect.attacks.effort import effort_for
from curvdetect.attacks.gradient_steps import GradientStepsAttack, Norm
from curvdetect.attacks.minimal_norm import MinimalNormAttack
from curvdetect.network import TorchModel

__all__ = ["KINDS", "Lesson", "curriculum", "shortest_budgets"]

#: Kinds of attacks: what is learned from one of a kind tells much of the others.
GRADIENT, MINIMAL, GIVEN = "gradient steps", "minimal norm", "given"
#: Those that are made here.
KINDS = (GRADIENT, MINIMAL)
#: Of a minimal perturbation, how far along it an attack goes.
FACTORS = (1.02, 1.5, 2.0, 3.0)
#: Of the input range: the largest change of a value.
LARGEST = 64 / 255
#: Of iterated attacks.
STEPS = 10


class Lesson(NamedTuple):
    """An attack to learn from.

    Attributes
    ----------
    name : str
        What it is called in tables.
    kind : str
        "gradient steps", "minimal norm" or "given".
    budget : float
        In input units: the largest change of a value for "linf", the L2 norm for "l2",
        a multiple of the minimal norm; NaN where it is not known.
    attack : callable
        ``attack(images, labels) -> images``.
    """

    name: str
    kind: str
    budget: float
    attack: Attack


def shortest_budgets(minimal: Tensor) -> dict[Norm, float]:
    """Return what it typically takes to fool a network, in either norm.

    Parameters
    ----------
    minimal : Tensor of shape (n, *input_shape)
        Minimal L2 perturbations of a few images.

    Returns
    -------
    dict of str to float
        Medians: of their norms; and, "linf", of what a linear boundary at the same
        distance needs.
    """
    way = minimal.flatten(1).double()
    norms = way.norm(dim=1)
    least = torch.finfo(way.dtype).tiny
    values = norms.square() / way.abs().sum(dim=1).clamp_min(least)
    return {"linf": float(values.median()), "l2": float(norms.median())}


def curriculum(
    model: TorchModel,
    n_values: int,
    shortest: Mapping[Norm, float],
    given: Mapping[str, Attack],
) -> list[Lesson]:
    """Return the attacks to learn from, scaled to a network.

    Parameters
    ----------
    model : TorchModel
        The network.
    n_values : int
        Of an image.
    shortest : dict of str to float
        Where the ladder of budgets begins, by norm, "linf" and "l2"; see
        :func:`shortest_budgets`.
    given : dict of str to callable
        The user's own.

    Returns
    -------
    list of Lesson
        Iterated and single steps in both norms at every rung of a ladder of budgets,
        multiples of the minimal perturbation, and those given.
    """
    low, high = model.bounds or (0.0, 1.0)
    largest = LARGEST * (high - low)
    lessons = [
        Lesson(
            f"minimal norm x {factor:g}",
            MINIMAL,
            factor,
            MinimalNormAttack(model, factor=factor),
        )
        for factor in FACTORS
    ]
    rung = effort_for(n_values).rung
    ladders: dict[Norm, Iterator[float]] = {
        "linf": _ladder(shortest["linf"], largest, rung),
        "l2": _ladder(shortest["l2"], largest * math.sqrt(n_values), rung),
    }
    for norm, ladder in ladders.items():
        for budget in ladder:
            for steps in (1, STEPS):
                attack = GradientStepsAttack(
                    model, budget=budget, norm=norm, steps=steps
                )
                name = f"{'one step' if steps == 1 else 'PGD'}, {norm} {budget:.3g}"
                lessons.append(Lesson(name, GRADIENT, budget, attack))
    return lessons + [
        Lesson(name, GIVEN, math.nan, attack) for name, attack in given.items()
    ]


def _ladder(lowest: float, highest: float, rung: float) -> Iterator[float]:
    """Yield budgets by factors of about `rung`, both ends among them."""
    lowest = max(min(lowest, highest / rung), highest / 1024)
    n = max(2, 1 + round(math.log(highest / lowest, rung)))
    for place in range(n):
        yield lowest * (highest / lowest) ** (place / (n - 1))
