"""Detection against cost: what each stage of a cascade adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from curvdetect.estimators import LearnedDetector, VotingDetector
from curvdetect.plotting import ADVERSARIAL
from curvdetect.report.guard.charts import Chart, chart
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import figure, share
from curvdetect.report.guard.stages import Stage

__all__ = ["TITLE", "build", "cost_of"]

TITLE = "Detection against cost"
#: What the stages of a learned detector look at.
_LOOKS = (
    "the image itself: its logits, and what a companion says, if there is one",
    "the image moved by a pixel, mirrored, and in two levels of grey",
    "the image moved back, blurred, and a step in a random direction, both ways",
)


def build(facts: Facts) -> dict[str, Any]:
    """Return what each stage costs and detects; the cost alone without a cascade."""
    stages = facts.stages
    return {
        "cost": cost_of(facts),
        "stages": list(zip(_LOOKS, stages, strict=False)),
        "chart": _chart(stages) if stages else None,
        "learned": isinstance(facts.guard.detector_, LearnedDetector),
        "rate": facts.target_fpr,
    }


def cost_of(facts: Facts) -> float:
    """Return what a clean image costs on average, in forward-equivalents.

    Parameters
    ----------
    facts : Facts
        What was measured.

    Returns
    -------
    float
        Of the images that were given, or of those of the calibration; NaN where the
        detector does not say.
    """
    guard = facts.guard
    if facts.stages:
        return facts.stages[-1].cost
    if isinstance(guard.detector_, LearnedDetector | VotingDetector):
        return guard.detector_.cost()
    if guard.featurizer_ is not None:
        return float(guard.featurizer_.cost())
    return math.nan


def _chart(stages: Sequence[Stage]) -> Chart:
    def draw(ax: Any) -> None:
        costs = [stage.cost for stage in stages]
        value, low, high = np.array([stage.auroc for stage in stages]).T
        errors = value - low, high - value
        ax.errorbar(costs, value, yerr=errors, fmt="o-", color=ADVERSARIAL, capsize=3)
        for number, place in enumerate(zip(costs, value, strict=True), 1):
            ax.annotate(
                f"up to stage {number}",
                place,
                xytext=(4, -12),
                textcoords="offset points",
            )
        ax.margins(x=0.25, y=0.3)
        ax.set_xlabel("cost of a clean image (FE, mean)")
        ax.set_ylabel("AUROC, all attacks together")

    said = "; ".join(
        f"{figure(stage.cost)} FE, {share(stage.auroc.value)}" for stage in stages
    )
    return chart(
        draw,
        size=(4.4, 3.0),
        name="cost",
        alt=f"AUROC against the mean cost of a clean image, a point a stage: {said}.",
    )
