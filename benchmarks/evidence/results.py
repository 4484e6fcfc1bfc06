"""The committed results of `detection`, by network and over all networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import RESULTS
from benchmarks.evidence.cells import LEAST
from benchmarks.evidence.networks import names, network

__all__ = [
    "Found",
    "Row",
    "found_in",
    "measured",
    "met_later",
    "mildly_corrupted",
    "overall",
    "rows",
]

#: Severities up to which corrupted images should be flagged hardly more often.
MILD = ("1", "2", "3")


@dataclass(frozen=True)
class Found:
    """What was measured on one network: attacks, detectors, comparisons."""

    attacks: dict[str, Any]
    detectors: dict[str, dict[str, Any]]
    failed: dict[str, str]
    means: dict[str, dict[str, Any]]

    @property
    def title(self) -> str:
        return str(self.attacks["title"])


@dataclass(frozen=True)
class Row:
    """A detector on one network or, as means, over those where it was measured.

    `auroc`, `unseen`, `detected` and `unseen_detected` (5 %) are figures with their
    intervals; over networks the ends are means too, which is wider than it must be.
    `worst` is the smallest AUROC of an attack that succeeded often enough. `corrupted`
    is the share flagged at 5 % of images up to severity 3 that the network gets right.
    """

    name: str
    ours: bool
    n_networks: int
    auroc: tuple[float, ...]
    unseen: tuple[float, ...]
    detected: tuple[float, ...]
    unseen_detected: tuple[float, ...]
    worst: float
    fe: float
    slower: float
    clean: float
    corrupted: float
    other_data: float


def measured() -> dict[str, Found]:
    """Return what was measured and compared, by network."""
    return _committed(later=False)


def met_later() -> dict[str, Found]:
    """Return the same of networks that nobody had looked at."""
    return _committed(later=True)


@cache
def _committed(later: bool) -> dict[str, Found]:
    chosen = [name for name in names() if network(name).met_later == later]
    return found_in(RESULTS / "detection", chosen)


def found_in(folder: Path, networks: Sequence[str]) -> dict[str, Found]:
    """Return what files of results hold, of networks that were measured to the end."""
    found = {}
    for name in networks:
        path = folder / f"{name}.jsonl"
        if not path.exists():
            continue
        lines = {c["what"]: c for c in map(json.loads, path.read_text().splitlines())}
        if "comparisons" not in lines:
            continue  # it is under way
        attacks, means = lines.pop("attacks"), lines.pop("comparisons")["means"]
        failed = {n: c["failed"] for n, c in lines.items() if "failed" in c}
        detectors = {n: c for n, c in lines.items() if n not in failed}
        found[name] = Found(attacks, detectors, failed, means)
    return found


def rows(found: Found) -> dict[str, Row]:
    """Return all detectors on one network, the best with a kind left out first."""
    made = {name: _row(name, found) for name in found.means}
    return dict(sorted(made.items(), key=lambda item: -item[1].unseen[0]))


def overall(found: dict[str, Found] | None = None) -> dict[str, Row]:
    """Return means over the networks on which each detector was measured."""
    by_name: dict[str, list[Row]] = {}
    for each in (measured() if found is None else found).values():
        for name, row in rows(each).items():
            by_name.setdefault(name, []).append(row)
    made = {name: _mean(each) for name, each in by_name.items()}
    return dict(sorted(made.items(), key=lambda item: -item[1].unseen[0]))


def _row(name: str, found: Found) -> Row:
    cell, means = found.detectors[name], found.means[name]
    cost = cell["cost"]
    other = cell["other_data"]
    return Row(
        name,
        cell["ours"],
        1,
        *(tuple(means[k]) for k in ("auroc", "unseen", "detected", "unseen_detected")),
        worst=min(
            values[0]
            for attack, values in cell["attacks"].items()
            if found.attacks["attacks"][attack]["n"] >= LEAST
        ),
        fe=cost["fe"],
        slower=cost["ms"] / cost["bare_ms"],
        clean=cell["clean"][1][0],
        corrupted=float(
            np.mean([flagged / n for flagged, n in mildly_corrupted(cell).values()])
        ),
        other_data=other[1][0] if other else float("nan"),
    )


def mildly_corrupted(cell: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return what is flagged at 5 % of mildly corrupted images, and of how many.

    By kind and severity, of the images that the network still gets right.
    """
    return {
        name: (counts[2], counts[0])
        for name, counts in cell["corrupted"].items()
        if name.endswith(MILD) and counts[0]
    }


def _mean(each: list[Row]) -> Row:
    def mean(of: Callable[[Row], Any]) -> Any:
        values = np.array([of(row) for row in each], dtype=float)
        with np.errstate(invalid="ignore"):
            kept = values[~np.isnan(values)] if values.ndim == 1 else values
        return kept.mean(axis=0) if len(kept) else float("nan")

    def geometric(of: Callable[[Row], float]) -> float:
        return float(np.exp(np.mean([np.log(max(of(row), 0.01)) for row in each])))

    return Row(
        each[0].name,
        each[0].ours,
        len(each),
        tuple(mean(lambda row: row.auroc)),
        tuple(mean(lambda row: row.unseen)),
        tuple(mean(lambda row: row.detected)),
        tuple(mean(lambda row: row.unseen_detected)),
        worst=min(row.worst for row in each),
        fe=geometric(lambda row: row.fe),
        slower=geometric(lambda row: row.slower),
        clean=mean(lambda row: row.clean),
        corrupted=mean(lambda row: row.corrupted),
        other_data=mean(lambda row: row.other_data),
    )
