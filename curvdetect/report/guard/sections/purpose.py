"""What the guard is for, and what it is not."""

from __future__ import annotations

from typing import Any

from curvdetect.report.guard.facts import Facts

__all__ = ["TITLE", "build"]

TITLE = "What the guard is for, and what it is not"


def build(facts: Facts) -> dict[str, Any]:
    """Return what becomes of a flagged image."""
    return {"on_flag": facts.guard.on_flag, "reject_label": facts.guard.reject_label}
