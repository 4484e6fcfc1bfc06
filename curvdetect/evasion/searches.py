"""The searches of an attacker who knows a learned guard, and what they learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from curvdetect.attacks import Attack, MinimalNormAttack
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.evasion.agreement import AgreementAttack
from curvdetect.evasion.joint import JointAttack
from curvdetect.evasion.minimal_evasion import MinimalEvasion, find_minimal_evasion
from curvdetect.evasion.shortest import Succeeds
from curvdetect.evasion.stand_in import StandIn
from curvdetect.network import TorchModel

__all__ = [
    "BUDGETS",
    "Budgeted",
    "Search",
    "agreement_attacks",
    "attackers_images",
    "in_batches",
    "largest_budget",
    "shortest_way",
    "taught",
    "within_budgets",
]

#: Budgets, in medians of the smallest perturbations.
BUDGETS = (1, 1.2, 1.5, 2, 3, 4, 6, 10)
#: Among so many of the attacker's images are those that the second lesson is about.
_AGAIN = 200
#: Makes an attack from its budget, `eps`.
Budgeted: TypeAlias = Callable[..., Attack]


@dataclass(frozen=True)
class Search:
    """How long attackers search.

    Attributes
    ----------
    steps : int
        Gradient steps of each attack within a budget.
    light : bool
        Whether one class is enough where the way is long, in fewer steps, and the
        stand-ins learn from fewer images.
    seed : int
        Of the stand-ins.
    batch_size : int or None
        Images attacked at a time within a budget; None is all at once.
    """

    steps: int = 30
    light: bool = False
    seed: int = 0
    batch_size: int | None = None


def in_batches(attack: Attack, size: int | None) -> Attack:
    """Let an attack have a few images at a time; None is all at once."""
    if size is None:
        return attack

    def each(images: Tensor, labels: Tensor) -> Tensor:
        parts = zip(images.split(size), labels.split(size), strict=True)
        return torch.cat([attack(x, label) for x, label in parts])

    return each


def agreement_attacks(
    detector: LearnedDetector, stand_in: StandIn | None, steps: int
) -> dict[str, Budgeted]:
    """Return ways to make a network agree on a wrong class, by name.

    Parameters
    ----------
    detector : LearnedDetector
        Fitted.
    stand_in : StandIn or None
        For two further attacks.
    steps : int
        Of each.

    Returns
    -------
    dict of str to callable
        Evenly or not, and on two classes where there are two others.
    """
    settings: dict[str, dict[str, Any]] = {
        "agreement": {"evenness": 0.0},
        "even agreement": {},
        "even agreement, second class": {"rank": 2},
    }
    if stand_in is not None:
        settings["stand-in"] = {"evenness": 0.0, "stand_in": stand_in}
        settings["stand-in, second class"] = {"rank": 2, "stand_in": stand_in}
    return {
        name: partial(AgreementAttack, detector, steps=steps, **each)
        for name, each in settings.items()
        if each.get("rank", 1) < detector.n_classes_
    }


def within_budgets(
    attack: Budgeted, succeeds: Succeeds, x: Tensor, label: Tensor, unit: float
) -> MinimalEvasion:
    """Return the smallest perturbations that an attack finds within `BUDGETS`."""
    return find_minimal_evasion(
        lambda eps: attack(eps=eps),
        succeeds,
        x,
        label,
        budgets=[unit * share for share in BUDGETS],
    )


def largest_budget(unit: float) -> float:
    """Return how far :func:`within_budgets` goes."""
    return max(BUDGETS) * unit


def shortest_way(
    detector: LearnedDetector,
    stand_in: StandIn,
    starts: Tensor | None,
    *,
    threshold: float,
    unit: float,
    light: bool,
) -> JointAttack:
    """Return the shortest way to where the network is wrong and nothing is seen.

    Parameters
    ----------
    detector : LearnedDetector
        Fitted.
    stand_in : StandIn
        Of it.
    starts : Tensor of shape (m, *input_shape) or None
        Unflagged images of other classes, where a further search begins; a light one
        needs none.
    threshold : float
        Of the detector's score.
    unit : float
        Median norm of what fools the network alone.
    light : bool
        As in :class:`Search`.

    Returns
    -------
    JointAttack
        On three classes and from the starts; a light one on one, in fewer steps.
    """
    settings = {"n_targets": 1, "n_steps": 100} if light else {"starts": starts}
    return JointAttack(
        detector,
        radius=1.5 * unit,
        stand_in=stand_in,
        threshold=threshold,
        **settings,
    )


def taught(
    detector: LearnedDetector,
    X: Tensor,
    y: Tensor,
    *,
    threshold: float,
    unit: float,
    search: Search,
) -> list[StandIn]:
    """Return a stand-in, and one that knows what the first one's attack found.

    Parameters
    ----------
    detector : LearnedDetector
        Fitted.
    X : Tensor of shape (n, *input_shape)
        The attacker's own images, on the network's device. Those that the network gets
        wrong are left out.
    y : Tensor of shape (n,)
        Their labels.
    threshold : float
        Of the detector's score, which the first one's attack has to get below.
    unit : float
        Median norm of what fools the network alone.
    search : Search
        How long.

    Returns
    -------
    list of StandIn
        Two.
    """
    own = attackers_images(detector, X, y, unit, search)
    first = StandIn(detector, own, seed=search.seed)
    n_own = 50 if search.light else 120
    x, label = _right(detector.model_, X[:_AGAIN], y[:_AGAIN], n_own)
    attack = JointAttack(
        detector,
        stand_in=first,
        threshold=threshold,
        n_targets=1 if search.light else 2,
    )
    found = attack(x, label)
    near = [torch.lerp(x, found, share) for share in (0.5, 0.7, 0.85, 0.95, 1.0, 1.1)]
    bounds = detector.model_.bounds or (-torch.inf, torch.inf)
    images = torch.cat([own, *near]).clamp(*bounds)
    return [first, StandIn(detector, images, steps=3000, seed=search.seed)]


def attackers_images(
    detector: LearnedDetector, X: Tensor, y: Tensor, unit: float, search: Search
) -> Tensor:
    """Return what a stand-in is taught: clean images, and attacks on them.

    Parameters
    ----------
    detector, X, y, unit, search
        As for :func:`taught`.

    Returns
    -------
    Tensor of shape (24 n_right, *input_shape)
        Of at most 200 images that the network gets right, or 80.
    """
    model = detector.model_
    x, label = _right(model, X, y, 80 if search.light else 200)
    found = [x]
    found += [
        MinimalNormAttack(model, factor=factor)(x, label) for factor in (1.02, 1.5, 3)
    ]
    against = partial(AgreementAttack, detector, steps=search.steps // 2)
    for evenness in (0.0, 0.5):
        for share in (1.2, 1.5, 2, 3, 4):
            attack = against(eps=unit * share, evenness=evenness)
            ahead = in_batches(attack, search.batch_size)(x, label)
            found += [ahead, torch.lerp(x, ahead, 0.6)]
    return torch.cat(found)


def _right(model: TorchModel, X: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the first images that the network gets right, and their labels."""
    right = torch.from_numpy(model.predict(X)).to(y.device) == y
    return X[right][:n], y[right][:n]
