"""How often clean images are flagged, in all and for each class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvdetect.report.guard.facts import Facts
from curvdetect.study.metrics import Estimate, proportion

__all__ = ["TITLE", "build"]

TITLE = "False positives"
#: Classes in the table: of more, those of which most is flagged.
_N_CLASSES = 30


class _Class(NamedTuple):
    """How often images of a class are flagged that the network gets right."""

    name: str
    n: int
    flagged: Estimate


def build(facts: Facts) -> dict[str, Any]:
    """Return shares with their intervals; of classes only where labels are known."""
    flagged, right = facts.found.flagged, facts.right
    labels = facts.given.labels
    classes = [] if labels is None else _classes(facts, labels)
    return {
        "n": len(flagged),
        "n_right": int(right.sum()),
        "right": proportion(flagged[right]),
        "wrong": proportion(flagged[~right]),
        "n_wrong": int((~right).sum()),
        "rate": facts.target_fpr,
        "labelled": labels is not None,
        "of_labels": facts.given.of_labels,
        "classes": classes[:_N_CLASSES],
        "n_more": max(0, len(classes) - _N_CLASSES),
    }


def _classes(facts: Facts, labels: npt.NDArray[np.int64]) -> list[_Class]:
    found = []
    for label in np.unique(labels):
        of_class = facts.right & (labels == label)
        if of_class.any():
            found.append(
                _Class(
                    facts.name_of(int(label)),
                    int(of_class.sum()),
                    proportion(facts.found.flagged[of_class]),
                )
            )
    if len(found) > _N_CLASSES:
        found.sort(key=lambda each: -each.flagged.value)
    return found
