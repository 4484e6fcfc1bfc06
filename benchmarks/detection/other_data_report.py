"""The table of images of another data set, beside an energy score."""

from __future__ import annotations

from benchmarks.common.results import read
from benchmarks.common.tables import interval, table

__all__ = ["by_detector"]


def by_detector() -> str:
    """Return a row for each detector and seed."""
    found: dict[str, dict[str, str]] = {}
    for cell in read("other_data"):
        found.setdefault(cell["detector"], {})[cell["out"]] = interval(cell["auroc"])
    rows = [[name, of["PGD"], of["mnist"]] for name, of in found.items()]
    return table(["detector", "AUROC, PGD", "AUROC, MNIST"], rows)
