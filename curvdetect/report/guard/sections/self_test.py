"""The self-test that was made when the guard was fitted."""

from __future__ import annotations

from typing import Any

from curvdetect.estimators import VotingDetector
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.sections.attacks_table import attack_rows, flagged_chart

__all__ = ["TITLE", "build"]

TITLE = "The self-test of the calibration"


def build(facts: Facts) -> dict[str, Any]:
    """Return the table and its chart, or None where there was no self-test."""
    test = facts.self_test
    if test is None:
        return {"rows": None, "chart": None, "rate": None, "votes": False}
    return {
        "rows": attack_rows(test),
        "chart": flagged_chart(test, name="self-test"),
        "rate": test.target_fpr,
        "votes": isinstance(facts.guard.detector_, VotingDetector),
    }
