"""What the norms of attackers come to: medians, and the evasion cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from curvdetect.evasion.cost import evasion_cost, smallest

__all__ = [
    "ATTACKERS_CELLS",
    "ATTACKS",
    "attackers_cells",
    "evasion_cost",
    "evasion_costs",
    "smallest",
    "stated",
]

#: How a result says which attacks were tried, and how a table does.
ATTACKS = {"all": "all", "quick": "shorter", "light": "shorter, light"}
#: Heads of the cells that `attackers_cells` returns.
ATTACKERS_CELLS = (
    "to fool",
    "to evade, 1 %",
    "cost",
    "by image",
    "never",
    "best attack",
    "to evade, 5 %",
    "cost",
    "by image",
    "never",
    "best attack",
)


def evasion_costs(found: dict[str, Any]) -> list[float]:
    """Return the evasion cost at each rate."""
    return [
        evasion_cost(norms, found["fooling"]) for norms in found["evading"].values()
    ]


def attackers_cells(found: dict[str, Any]) -> list[str]:
    """Return the cells of a network's row: what fools it, and for each rate evades."""
    fool = smallest(found["fooling"])
    cells = [f"{np.median(fool):.3g}"]
    for norms in found["evading"].values():
        evade = smallest(norms)
        medians = {attack: np.median(of) for attack, of in norms.items()}
        cells += [
            f"{np.median(evade):.3g}",
            f"**{np.median(evade) / np.median(fool):.2f}**",
            f"{np.median(evade / fool):.2f}",
            f"{np.isinf(evade).mean():.2f}",
            min(medians, key=lambda attack: medians[attack]),
        ]
    return cells


def stated(certified: dict[str, Any]) -> dict[str, str]:
    """Return what certificates state, which is the same for all networks."""
    first = next(iter(certified.values()))
    return {
        "n_votes": first["n_votes"],
        "flagged": f"{1 - first['level']:g}",
        "confidence": f"{first['confidence']:g}",
    }
