"""What it costs to evade a guard, measured elsewhere and given in a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from curvdetect._base.checks import check_count, check_positive, check_share

__all__ = ["Evasion", "read_evasion"]


class Evasion(NamedTuple):
    """What one search by an attacker who knows the guard found.

    Attributes
    ----------
    attack : str
        What it is called.
    n_images : int
        Images that it was tried on.
    norm_to_fool, norm_to_evade : float
        Median L2 norms, in input units, of the smallest perturbations found that the
        network gets wrong; and that it gets wrong while the guard does not flag them.
    target_fpr : float
        The guard's false-positive rate.
    """

    attack: str
    n_images: int
    norm_to_fool: float
    norm_to_evade: float
    target_fpr: float

    @property
    def cost(self) -> float:
        """How many times as long a perturbation has to be because of the guard."""
        return self.norm_to_evade / self.norm_to_fool


def read_evasion(path: str | Path) -> list[Evasion]:
    """Read what was measured of attackers who know the guard.

    Parameters
    ----------
    path : str or Path
        A JSON file: a list of objects with the names of :class:`Evasion`, or one.

    Returns
    -------
    list of Evasion
        In the order of the file.

    Raises
    ------
    ValueError
        If it is not that.
    OSError
        If it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:  # also of bytes that are no text
        raise ValueError(
            f"evasion must be a JSON file; {path} is none: {error}"
        ) from error
    rows = content if isinstance(content, list) else [content]
    if not rows:
        raise ValueError(f"evasion must hold at least one search; {path} holds none")
    return [_evasion(row, path) for row in rows]


def _evasion(row: Any, path: str | Path) -> Evasion:
    if not isinstance(row, dict) or set(row) != set(Evasion._fields):
        got = sorted(row) if isinstance(row, dict) else row
        raise ValueError(
            f"evasion must hold objects with {', '.join(Evasion._fields)}; {path} has "
            f"one with {got}"
        )
    if not isinstance(row["attack"], str):
        raise ValueError(f"evasion: attack must be a text; got {row['attack']!r}")
    check_count("evasion: n_images", row["n_images"])
    check_share("evasion: target_fpr", row["target_fpr"])
    for name in ("norm_to_fool", "norm_to_evade"):
        check_positive(f"evasion: {name}", row[name])
    return Evasion(**row)
