"""What the guide says of exported guards."""

from __future__ import annotations

from typing import Any

from benchmarks.common.results import read
from benchmarks.common.tables import table

__all__ = ["beside_the_guard"]


def beside_the_guard() -> str:
    """Return a table: whether a program says what its guard says, and in what time."""
    head = (
        "guard of",
        "same labels, flags",
        "scores differ by",
        "AUROC: guard, program",
        "time, over the guard's",
        "with every stage",
    )
    return table(
        head, [row(name, of) for name, of in read("exported")["guards"].items()]
    )


def row(name: str, found: dict[str, Any]) -> list[str]:
    """Return the figures of one guard: the worst of all sizes of batches."""
    agreement = dict(found["agreement"])
    guards_own = agreement.pop("auroc")
    sizes = agreement.values()
    labels, flags = (
        min(of[f"same_{what}"] for of in sizes) for what in ("label", "flagged")
    )
    programs_own = max(
        (of["auroc"] for of in sizes), key=lambda at: abs(at - guards_own)
    )
    difference = max(of["score_difference"] for of in sizes)
    return [
        name,
        f"{labels:.3f}, {flags:.3f}",
        f"{difference:.0e}" if difference else "0",
        f"{guards_own:.4f}, {programs_own:.4f}",
        ratios(found["time_of_the_guard"]),
        ratios(found["time_of_the_guard, every stage"]),
    ]


def ratios(of_sizes: dict[str, Any]) -> str:
    """Return the median ratio of each size of batches."""
    return ", ".join(f"{of['median']:.2f}" for of in of_sizes.values())
