"""The README's table of three networks a data set, with one threshold of curvature."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.networks import NETWORKS
from benchmarks.common.results import RESULTS
from benchmarks.common.tables import interval, table

__all__ = ["short_table"]

ATTACKS = {"pgd": "PGD {eps}/255", "minimal_norm_1.02": "minimal norm x 1.02"}
COLUMNS = {
    "AUROC": "auroc",
    "relabelled right": "relabel",
    "detected": "flagged_adversarial",
    "clean flagged": "flagged_clean",
    "noisy flagged": "flagged_noisy",
}


def short_table() -> str:
    """Return it: a row for each network and attack."""
    paths = sorted(RESULTS.glob("main_job-*.json"))
    head = ["network (test accuracy)", "attack (success)", "images", *COLUMNS]
    return table(head, [row for path in paths for row in rows(path)])


def rows(path: Path) -> list[list[str]]:
    """Return a network's rows."""
    result = json.loads(path.read_text())
    name, accuracy = result["dataset"], result["network_accuracy"]
    found = []
    for key, attack in ATTACKS.items():
        figures = result[key]
        attack = attack.format(eps=NETWORKS[name].budgets[0])
        found.append(
            [
                f"{name}, seed {path.stem.rpartition('-')[2]} ({accuracy:.3f})",
                f"{attack} ({figures['success'][0]:.2f})",
                f"{figures['n_clean']} + {figures['n_adversarial']}",
                *(interval(figures[column]) for column in COLUMNS.values()),
            ]
        )
    return found
