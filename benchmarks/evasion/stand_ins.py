"""A smooth stand-in of the learned guard, and the shortest way past both."""

from __future__ import annotations

import torch

from benchmarks.evasion.guarded import Guarded
from curvdetect.evasion import JointAttack, StandIn, searches
from curvdetect.evasion.searches import Search

__all__ = ["shortest_ways", "taught"]


def shortest_ways(
    guarded: Guarded, stand_in: StandIn, threshold: float, unit: float, search: Search
) -> JointAttack:
    """Return the shortest way to where the network is wrong and nothing is seen."""
    starts = None
    if not search.light:
        starts, _ = guarded.starts()
        starts = starts[guarded.detector.score_samples(starts) <= threshold]
    return searches.shortest_way(
        guarded.detector,
        stand_in,
        starts,
        threshold=threshold,
        unit=unit,
        light=search.light,
    )


def taught(guarded: Guarded, unit: float, search: Search) -> list[StandIn]:
    """Return a stand-in, and one that knows what the first one's attack found."""
    return searches.taught(
        guarded.detector,
        *map(torch.from_numpy, guarded.fit),
        threshold=guarded.strictest,
        unit=unit,
        search=search,
    )
