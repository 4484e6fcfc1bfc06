"""What it costs an attacker who knows the guard."""

from __future__ import annotations

from typing import Any

from curvdetect.report.guard.evasion import NEEDED
from curvdetect.report.guard.facts import Facts

__all__ = ["TITLE", "build"]

TITLE = "Attackers who know the guard"


def build(facts: Facts) -> dict[str, Any]:
    """Return what was measured elsewhere, which may be nothing."""
    return {"searches": list(facts.evasion), "names": NEEDED}
