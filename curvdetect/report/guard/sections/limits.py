"""What the page cannot say."""

from __future__ import annotations

from typing import Any

from curvdetect.report.guard.facts import Facts

__all__ = ["TITLE", "build"]

TITLE = "Limits"


def build(facts: Facts) -> dict[str, Any]:
    """Return what was not measured, of this guard, with these images."""
    return {
        "evasion": bool(facts.evasion),
        "certified": facts.certified is not None,
        "labelled": facts.given.labels is not None,
        "n": len(facts.given.X),
        "attacked": facts.attacked,
    }
