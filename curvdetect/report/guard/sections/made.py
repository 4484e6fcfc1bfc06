"""How the page was made, so that it can be made again."""

from __future__ import annotations

from typing import Any

import sklearn
import torch

from curvdetect import __version__
from curvdetect.report.guard.facts import Facts

__all__ = ["TITLE", "build"]

TITLE = "How this page was made"


def build(facts: Facts) -> dict[str, Any]:
    """Return files, versions and the seed."""
    attacked = facts.attacked
    return {
        "rows": [
            ("Guard", facts.origin.guard or "not said"),
            ("Images", f"{facts.origin.images or 'not said'}: {len(facts.given.X):,}"),
            ("Labels", facts.given.of_labels),
            ("Images attacked", f"{0 if attacked is None else attacked.n_attacked:,}"),
            ("Seed", str(facts.seed)),
            (
                "Versions",
                f"curvdetect {__version__}, torch {torch.__version__}, scikit-learn "
                f"{sklearn.__version__}",
            ),
        ]
        + ([("Date", facts.origin.date)] if facts.origin.date else [])
    }
