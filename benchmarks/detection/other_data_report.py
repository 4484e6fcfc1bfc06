"""The table of images of another data set, beside an energy score."""

from __future__ import annotations

from benchmarks.common.results import read
from benchmarks.common.tables import interval, table

__all__ = ["by_detector", "in_short"]


def by_detector() -> str:
    """Return a row for each detector and seed."""
    found: dict[str, dict[str, str]] = {}
    for cell in read("other_data"):
        found.setdefault(cell["detector"], {})[cell["out"]] = interval(cell["auroc"])
    rows = [[name, of["PGD"], of["mnist"]] for name, of in found.items()]
    return table(["detector", "AUROC, PGD", "AUROC, MNIST"], rows)


def in_short() -> str:
    """Say what the learned detector and the energy score have, of both."""
    areas: dict[str, dict[str, list[float]]] = {}
    for cell in read("other_data"):
        who = "learned" if cell["detector"].startswith("learned") else cell["detector"]
        of = areas.setdefault(who, {})
        of.setdefault(cell["out"], []).append(cell["auroc"][0])
    ours, (energy,) = areas["learned"]["mnist"], areas["energy"]["mnist"]
    pgd, (energy_pgd,) = areas["learned"]["PGD"], areas["energy"]["PGD"]
    return (
        f"its AUROC is {min(ours):.2f} to {max(ours):.2f} ({len(ours)} seeds) and "
        f"pytorch-ood's\nenergy score has {energy:.2f}; of PGD, {min(pgd):.3f} and "
        f"{energy_pgd:.3f}"
    )
