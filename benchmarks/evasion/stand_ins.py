"""A smooth stand-in of the learned guard, and the shortest way past both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.evasion.guarded import Guarded
from curvdetect.attacks import MinimalNormAttack
from curvdetect.evasion import AgreementAttack, JointAttack, StandIn

__all__ = ["Search", "shortest_ways", "taught"]


@dataclass(frozen=True)
class Search:
    """How long attackers search: `light` is one class each, and fewer steps."""

    steps: int = 30
    light: bool = False


def shortest_ways(
    guarded: Guarded, stand_in: StandIn, threshold: float, unit: float, search: Search
) -> JointAttack:
    """Return the shortest way to where the network is wrong and nothing is seen."""
    settings = {"n_targets": 1, "n_steps": 100}
    if not search.light:
        starts, _ = guarded.starts()
        seen = guarded.detector.score_samples(starts)
        settings = {"starts": starts[seen <= threshold]}
    return JointAttack(
        guarded.detector,
        radius=1.5 * unit,
        stand_in=stand_in,
        threshold=threshold,
        **settings,
    )


def taught(guarded: Guarded, unit: float, search: Search) -> list[StandIn]:
    """Return a stand-in, and one that knows what the first one's attack found."""
    own = attackers_images(guarded, unit, search)
    first = StandIn(guarded.detector, own)
    X, y = (torch.from_numpy(part[:200]) for part in guarded.fit)
    kept = torch.from_numpy(guarded.network.predict(X)) == y
    n_own = 50 if search.light else 120
    x, label = X[kept][:n_own], y[kept][:n_own]
    attack = JointAttack(
        guarded.detector,
        stand_in=first,
        threshold=guarded.strictest,
        n_targets=1 if search.light else 2,
    )
    found = attack(x, label)
    near = [torch.lerp(x, found, share) for share in (0.5, 0.7, 0.85, 0.95, 1.0, 1.1)]
    images = torch.cat([own, *near]).clamp(0, 1)
    return [first, StandIn(guarded.detector, images, steps=3000)]


def attackers_images(guarded: Guarded, unit: float, search: Search) -> Tensor:
    """Return what the stand-in is taught: clean images, and attacks on them."""
    X, y = guarded.fit
    right = guarded.network.predict(X) == y
    n_own = 80 if search.light else 200
    x, label = torch.from_numpy(X[right][:n_own]), torch.from_numpy(y[right][:n_own])
    found = [x]
    found += [
        MinimalNormAttack(guarded.network, factor=factor)(x, label)
        for factor in (1.02, 1.5, 3)
    ]
    against = partial(AgreementAttack, guarded.detector, steps=search.steps // 2)
    for evenness in (0.0, 0.5):
        for share in (1.2, 1.5, 2, 3, 4):
            ahead = against(eps=unit * share, evenness=evenness)(x, label)
            found += [ahead, torch.lerp(x, ahead, 0.6)]
    return torch.cat(found)
