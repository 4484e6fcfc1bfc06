"""Rows of a table of attacks, for the two sections that have one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from curvdetect.estimators import SelfTest, Tried
from curvdetect.report.guard.charts import Chart, chart
from curvdetect.report.guard.numbers import between, figure, share
from curvdetect.report.sections.self_test import draw_test

__all__ = ["Row", "attack_rows", "flagged_chart"]


class Row(NamedTuple):
    """An attack, as the table has it."""

    attack: str
    budget: str
    success: str
    n: str
    norm: str
    auroc: str
    detected: str
    relabelled: str
    noise: str
    without: str


def attack_rows(test: SelfTest) -> list[Row]:
    """Return a row for each attack.

    Parameters
    ----------
    test : SelfTest
        Of a fit, or of images that were given.

    Returns
    -------
    list of Row
        With the units of every budget.
    """
    return [
        Row(
            attack=row.attack,
            budget=_budget(row),
            success=share(row.success),
            n=f"{row.n_fooled:,} of {row.n_attacked:,}",
            norm=figure(row.norm),
            auroc=between((row.auroc, row.auroc_low, row.auroc_high)),
            detected=between((row.detected, row.detected_low, row.detected_high)),
            relabelled=between(
                (row.relabelled, row.relabelled_low, row.relabelled_high)
            ),
            noise=share(row.flagged_noise),
            without=share(row.auroc_without),
        )
        for row in test
    ]


def _budget(row: Tried) -> str:
    if math.isnan(row.budget):
        return "not known"
    if row.kind == "minimal norm":
        return f"{figure(row.budget)} x the least norm"
    unit = "L2 norm" if ", l2" in row.attack else "each value"
    return f"{figure(row.budget)}, {unit}"


def flagged_chart(test: SelfTest, *, name: str) -> Chart:
    """Draw what share of each attack is flagged.

    Parameters
    ----------
    test : SelfTest
        At least one row.
    name : str
        Of the chart, unique on the page.

    Returns
    -------
    Chart
        For a template.
    """

    def draw(ax: Any) -> None:
        draw_test(ax, test)
        ax.set_xlabel("share flagged, with its 95 % interval")

    least = min(test, key=lambda row: row.detected)
    most = max(test, key=lambda row: row.detected)
    return chart(
        draw,
        size=(4.0, 1.3 + 0.19 * len(test)),
        name=name,
        alt=(
            f"Share flagged of each of {len(test)} attacks with its interval: from "
            f"{share(least.detected)} after {least.attack} to {share(most.detected)} "
            f"after {most.attack}. The table has every number."
        ),
    )
