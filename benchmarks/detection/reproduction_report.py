"""The README's table of the report's experiment, by `curvdetect reproduce`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.networks import LENETS, NETWORKS
from benchmarks.common.tables import table
from curvdetect.report.sections.figures_table import (
    REPORT_ACCURACY,
    REPORT_RELABELLING,
)

__all__ = ["short_table"]

REPRODUCTION = Path(__file__).parents[2] / "docs" / "reproduction"
GIVEN = {
    "detection accuracy": REPORT_ACCURACY,
    "relabelling accuracy": REPORT_RELABELLING,
}


def short_table() -> str:
    """Return it: the mean over all draws, by the report's method and by ours."""
    figures = {
        network: json.loads((REPRODUCTION / network / "results.json").read_text())[
            "figures"
        ]
        for network in LENETS
    }
    head = ["", "the report"]
    for network in LENETS:
        data = NETWORKS[network].title.removeprefix("LeNet, ")
        head += [f"{data}, its method", "ours"]
    rows = []
    for name, given in GIVEN.items():
        row = [name, given]
        for of in figures.values():
            theirs, ours = of["the report's method"], of["curvdetect's default"]
            row += [f"{theirs[name][0]:.3f}", f"{ours[name][0]:.3f}"]
        rows.append(row)
    return table(head, rows)
