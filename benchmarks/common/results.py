"""Files of results, and how numbers are rounded for them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from curvdetect.study import metrics

__all__ = [
    "CACHE",
    "RESULTS",
    "known",
    "read",
    "rounded",
    "shares",
    "significant",
    "write",
]

RESULTS = Path(__file__).parents[1] / "results"
#: What commands keep between runs, or make for each other; git ignores it.
CACHE = Path(__file__).parents[1] / "cache"


def read(name: str) -> Any:
    """Return what a committed file of results holds; `name` is without its .json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def known(path: Path, otherwise: Any) -> Any:
    """Return what a file holds already, so that a run adds to it."""
    return json.loads(path.read_text()) if path.exists() else otherwise


def write(path: Path, results: Any) -> None:
    """Write JSON with each list of numbers in a line of its own."""
    text = json.dumps(results, indent=1)
    # Only lists that were broken into lines: a bracket within a string was not.
    numbers = r'\[\n[^\[\]{}"]*\]'
    text = re.sub(numbers, lambda found: _in_a_line(found[0]), text)
    path.write_text(text + "\n")


def rounded(value: Any, digits: int = 4) -> Any:
    """Round all floats of what goes into a file to so many decimals."""
    return _each(value, lambda x: round(x, digits))


def significant(value: Any, digits: int = 4) -> Any:
    """Round all floats to so many digits; what is not finite is null."""
    return _each(
        value, lambda x: float(f"{x:.{digits}g}") if math.isfinite(x) else None
    )


def shares(scores: np.ndarray, thresholds: dict[float, float]) -> dict[str, Any]:
    """Return the share of scores above each threshold, by its false-positive rate."""
    return {
        str(fpr): rounded(metrics.proportion(scores > threshold))
        for fpr, threshold in thresholds.items()
    }


def _in_a_line(numbers: str) -> str:
    return f"[{' '.join(numbers[1:-1].split())}]"


def _each(value: Any, of_float: Any) -> Any:
    if isinstance(value, float | np.floating):
        return of_float(float(value))
    if isinstance(value, tuple | list):
        return [_each(each, of_float) for each in value]
    if isinstance(value, dict):
        return {key: _each(each, of_float) for key, each in value.items()}
    return value
