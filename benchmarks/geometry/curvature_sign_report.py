"""The table of signs, and what `curvdetect reproduce` says of other networks."""

from __future__ import annotations

from typing import Any

from benchmarks.common.results import read
from benchmarks.common.tables import interval, table

__all__ = ["by_network", "in_short", "rule_holds", "signs"]


def by_network() -> str:
    """Return a row for each network."""
    head = (
        "network",
        "images",
        "natural: mean",
        "after PGD: mean",
        "natural: largest",
        "after PGD: largest",
        "AUROC of the largest",
        "signs",
    )
    rows = [
        [
            of["title"],
            f"{of['n_natural']} + {of['n_perturbed']}",
            *(
                interval(of[images][which]["value"])
                for which in ("mean", "largest")
                for images in ("natural", "perturbed")
            ),
            interval(of["auroc"], 2),
            signs(of),
        ]
        for of in read("curvature_sign").values()
    ]
    return table(head, rows)


def signs(of: dict[str, Any]) -> str:
    """Say whether they are the report's: natural below zero, perturbed above.

    With their whole intervals; of the mean over boundaries, or else of the largest.
    """
    for which in ("mean", "largest"):
        natural, perturbed = (of[i][which]["value"] for i in ("natural", "perturbed"))
        if natural[2] < 0 < perturbed[1]:
            return f"as in the report ({which})"
    return "other"


def rule_holds(of: dict[str, Any]) -> bool:
    """Say whether more curved means perturbed: the whole interval above a half."""
    return bool(of["auroc"][1] > 0.5)


def in_short() -> str:
    """Say in a sentence on how many networks what holds."""
    found = read("curvature_sign").values()
    signed = sum(signs(of) != "other" for of in found)
    rule = sum(rule_holds(of) for of in found)
    worst = min(found, key=lambda of: of["auroc"][0])
    return (
        f"these signs are there on {signed} of {len(found)} networks, perturbed images "
        f"are the more curved ones on {rule}, and on {worst['title']} the AUROC of the "
        f"largest curvature is {worst['auroc'][0]:.2f}"
    )
