"""What is proven, where the guard proves anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from curvdetect.estimators import Certified, VotingDetector
from curvdetect.plotting import CertificateDisplay
from curvdetect.report.guard.charts import Chart, chart
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import figure, share
from curvdetect.study.metrics import proportion

__all__ = ["TITLE", "build"]

TITLE = "What is certified"


def build(facts: Facts) -> dict[str, Any]:
    """Return the claim and its curve, or None where nothing is certified."""
    certified = facts.certified
    if certified is None or facts.attacked is None:
        return {
            "claim": None,
            "votes": isinstance(facts.guard.detector_, VotingDetector),
        }
    norms = facts.attacked.norms
    median = float(np.median(norms))
    return {
        "claim": str(certified),
        "some": proportion(certified.radius > 0),
        "as_far": proportion(certified.radius >= median),
        "median": median,
        "n": len(certified.radius),
        "chart": _chart(certified, norms),
    }


def _chart(certified: Certified, norms: npt.NDArray[np.float64]) -> Chart:
    def draw(ax: Any) -> None:
        CertificateDisplay.from_certified(certified, norms=norms, ax=ax)
        ax.set_title("")  # the text says it
        ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.18), frameon=False)

    return chart(
        draw,
        size=(4.0, 3.6),
        name="certificate",
        alt=(
            "Share of images with a certified radius of at least so much, which falls "
            f"from {share(float(np.mean(certified.radius > 0)))} at 0; beside it, the "
            "share that it takes a longer change than that to fool, the median "
            f"{figure(float(np.median(norms)))} input units."
        ),
    )
