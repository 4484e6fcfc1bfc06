"""What it costs to evade a guard, measured elsewhere: the file that it comes in."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curvdetect._base.checks import check_count, check_positive, check_share
from curvdetect._base.files import written_text
from curvdetect.evasion.cost import Evasion

__all__ = ["NEEDED", "Evasion", "read_evasion", "write_evasion"]

_OPTIONAL = tuple(Evasion._field_defaults)
#: What the file must say of each search.
NEEDED = tuple(name for name in Evasion._fields if name not in _OPTIONAL)


def write_evasion(path: str | Path, searches: Sequence[Evasion]) -> None:
    """Write what was measured, for :func:`read_evasion`.

    Parameters
    ----------
    path : str or Path
        A JSON file, which appears when it is whole.
    searches : sequence of Evasion
        Such as :meth:`curvdetect.evasion.MeasuredEvasion.searches` returns them.

    Raises
    ------
    OSError
        If it cannot be written; one that was there before is still whole.
    """
    rows = [
        {name: _finite(value) for name, value in each._asdict().items()}
        for each in searches
    ]
    written_text(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")


def read_evasion(path: str | Path) -> list[Evasion]:
    """Read what was measured of attackers who know the guard.

    Parameters
    ----------
    path : str or Path
        A JSON file: a list of objects with the names of
        :class:`~curvdetect.evasion.Evasion`, or one. "n_never", "largest_norm" and
        "interval" may be left out. "norm_to_evade" is null where half of the images, or
        more, never evaded; "largest_norm" may then say how far the search went. An end
        of an interval that is null is infinite.

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
    if not isinstance(row, dict) or not set(NEEDED) <= set(row) <= {
        *NEEDED,
        *_OPTIONAL,
    }:
        got = sorted(row) if isinstance(row, dict) else row
        raise ValueError(
            f"evasion must hold objects with {', '.join(NEEDED)}, and perhaps "
            f"{', '.join(_OPTIONAL)}; {path} has one with {got}"
        )
    if not isinstance(row["attack"], str):
        raise ValueError(f"evasion: attack must be a text; got {row['attack']!r}")
    check_count("evasion: n_images", row["n_images"])
    check_share("evasion: target_fpr", row["target_fpr"])
    check_positive("evasion: norm_to_fool", row["norm_to_fool"])
    given = {name: value for name, value in row.items() if value is not None}
    if "largest_norm" in given:
        check_positive("evasion: largest_norm", given["largest_norm"])
    if "norm_to_evade" in given:
        check_positive("evasion: norm_to_evade", given["norm_to_evade"])
    if "interval" in given:
        given["interval"] = _interval(given["interval"])
    _check_never(given)
    return Evasion(**{"norm_to_evade": math.inf, **given})


def _check_never(given: dict[str, Any]) -> None:
    n, n_images = given.get("n_never", 0), given["n_images"]
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= n_images:
        raise ValueError(
            f"evasion: n_never must be an integer from 0 to n_images={n_images}; got "
            f"{n!r}"
        )


def _interval(ends: Any) -> tuple[float, float]:
    """Return an interval; what is null is infinite."""
    if not isinstance(ends, list) or len(ends) != 2:
        raise ValueError(f"evasion: interval must be two numbers; got {ends!r}")
    for end in ends:
        if end is not None:
            check_positive("evasion: interval", end)
    low, high = (math.inf if end is None else float(end) for end in ends)
    if low > high:
        raise ValueError(f"evasion: interval must not fall; got {ends!r}")
    return low, high


def _finite(value: Any) -> Any:
    """Return a value for JSON, which knows no infinity."""
    if isinstance(value, tuple):
        return [_finite(each) for each in value]
    return None if value == math.inf else value
