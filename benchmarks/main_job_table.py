"""Print the README's table from the results of ``main_job.py``.

python benchmarks/main_job_table.py benchmarks/results/main_job-*.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from networks import NETWORKS

ATTACKS = {"pgd": "PGD {eps}/255", "minimal_norm_1.02": "minimal norm x 1.02"}
COLUMNS = {
    "AUROC": "auroc",
    "relabelled right": "relabel",
    "detected": "flagged_adversarial",
    "clean flagged": "flagged_clean",
    "noisy flagged": "flagged_noisy",
}


def table(paths: list[Path]) -> str:
    """Return a Markdown table, a row per network and attack."""
    header = ["network (test accuracy)", "attack (success)", "images", *COLUMNS]
    lines = [" | ".join(header), " | ".join(["---"] * len(header))]
    for path in sorted(paths):
        result = json.loads(path.read_text())
        for key, name in ATTACKS.items():
            figures = result[key]
            attack = name.format(eps=NETWORKS[result["dataset"]].budgets[0])
            cells = [
                f"{result['dataset']}, seed {path.stem[-1]} "
                f"({result['network_accuracy']:.3f})",
                f"{attack} ({figures['success'][0]:.2f})",
                f"{figures['n_clean']} + {figures['n_adversarial']}",
                *[interval(*figures[column]) for column in COLUMNS.values()],
            ]
            lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def interval(value: float, low: float, high: float) -> str:
    """Return "0.95 (0.94-0.97)"."""
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
