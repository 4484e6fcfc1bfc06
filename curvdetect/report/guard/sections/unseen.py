"""The same attacks on the images given, with ROC curves."""

from __future__ import annotations

from typing import Any

from curvdetect.report.guard.attacked import Attacked
from curvdetect.report.guard.charts import Chart, chart
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import share
from curvdetect.report.guard.sections.attacks_table import attack_rows
from curvdetect.report.sections.roc_curve import draw_curves

__all__ = ["TITLE", "build"]

TITLE = "The same attacks on the images given"
#: How far the second chart goes along the false-positive rate.
_NEAR = 0.1


def build(facts: Facts) -> dict[str, Any]:
    """Return the table and the curves, or None where nothing was attacked."""
    attacked = facts.attacked
    if attacked is None or not len(attacked.test):
        return {"rows": None, "charts": [], "attacked": attacked, "labelled": False}
    return {
        "rows": attack_rows(attacked.test),
        "charts": [
            _curves(attacked, "roc", right=1.0),
            _curves(attacked, "roc-near", right=_NEAR),
        ],
        "attacked": attacked,
        "rate": facts.target_fpr,
        "labelled": facts.given.labels is not None,
    }


def _curves(attacked: Attacked, name: str, *, right: float) -> Chart:
    """Draw the hardest attack of each family, up to a false-positive rate."""
    hardest = attacked.hardest()

    def draw(ax: Any) -> None:
        scores = {row.attack: attacked.scores[row.attack] for row in hardest}
        draw_curves(ax, attacked.clean, scores)
        # From corner to corner: scikit-learn leaves a margin.
        ax.set(xlim=(0, right), ylim=(0, 1.01), aspect="auto")
        ax.set_xlabel("clean images flagged (share)")
        ax.set_ylabel("adversarial images flagged (share)")
        # Their areas with three decimals: what is nearly 1 is not 1.00.
        names = [f"{row.attack}, AUROC {share(row.auroc)}" for row in hardest]
        ax.legend(
            ax.get_legend_handles_labels()[0],
            [*names, "chance"],
            loc="upper center",
            bbox_to_anchor=(0.45, -0.16),
            frameon=False,
            fontsize=8,
            handlelength=4,
        )

    said = "; ".join(f"{row.attack}, {share(row.auroc)}" for row in hardest)
    part = "" if right == 1 else f" for false-positive rates up to {right:g}"
    return chart(
        draw,
        size=(4.0, 4.6),
        name=name,
        alt=(
            f"ROC curves{part}, of the attack of each of {len(hardest)} families that "
            f"is told worst from clean images. Areas under the curves: {said}."
        ),
    )
