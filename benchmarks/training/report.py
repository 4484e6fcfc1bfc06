"""The table of networks that were trained to be flatter, or against PGD."""

from __future__ import annotations

from typing import Any

from benchmarks.common.networks import LENETS
from benchmarks.common.results import read
from benchmarks.common.tables import interval, table

__all__ = ["by_training"]

TRAININGS = ("plain", "CURE", "PGD training")
HEAD = (
    "network",
    "accuracy",
    "under PGD",
    "smallest norm",
    "change of gradient",
    "largest curvature",
    "AUROC, PGD",
    "relabelled right",
    "noisy flagged",
)


def by_training() -> str:
    """Return a row for each network and loss."""
    found = {network: read(f"cure-{network}") for network in LENETS}
    return table(
        HEAD,
        [
            row(f"{network}, {training}", of[training])
            for network, of in found.items()
            for training in TRAININGS
        ],
    )


def row(name: str, of: dict[str, Any]) -> list[str]:
    """Return the row of one network."""
    pgd, penalty = of["detection"]["pgd"], of["penalty_at_h_1"]
    return [
        name,
        f"{of['accuracy']:.3f}",
        f"{of['accuracy_under_pgd']:.2f}",
        f"{of['adversarial_norm_median']:.2f}",
        f"{float(f'{penalty:.2g}'):g}",
        f"{of['boundary_largest_curvature']:.1f}",
        interval(pgd["auroc"]),
        interval(pgd["relabel"]),
        f"{pgd['flagged_noisy'][0]:.2f}",
    ]
