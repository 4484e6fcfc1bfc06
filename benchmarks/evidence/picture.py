"""The picture of the benchmark: detection against cost, every detector."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.evidence.results import Row, measured, overall

__all__ = ["PICTURE", "pictures"]

PICTURE = "detection.png"
OURS, OTHERS = "#D55E00", "0.45"
#: The best of others, which are named in the picture.
N_NAMED = 3
#: Where what costs less is drawn: a network of a detector's own is not counted.
LEAST = 0.5
#: From how many passes names stand on the left of their points.
DEAR = 10


def pictures() -> dict[str, Figure]:
    """Return detection at 5 % against forward-equivalents and against time."""
    found = {n: row for n, row in overall().items() if ", seed" not in n}
    figure = Figure(figsize=(11, 5.2), layout="constrained", dpi=130)
    left, right = figure.subplots(1, 2, sharey=True)
    draw(left, found, [row.fe for row in found.values()])
    draw(right, found, [row.slower for row in found.values()])
    left.set_xlabel(
        f"cost of an image, in forward passes ({LEAST} or less: at the edge)"
    )
    right.set_xlabel("time of an image, in times of the network alone")
    left.set_ylabel("detected at 5 % false positives, mean over attacks")
    marks = {"all attacks": OTHERS, "the kind of attack left out": "white"}
    for label, face in marks.items():
        left.plot([], [], "o", color=OTHERS, mfc=face, label=label)
    left.plot([], [], "o", color=OURS, label="curvdetect")
    left.legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{len(found)} detectors, means over {len(measured())} networks")
    return {PICTURE: figure}


def draw(ax: Axes, found: dict[str, Row], costs: list[float]) -> None:
    """Draw each detector twice, with the interval of what was learned without."""
    others = [name for name, row in found.items() if not row.ours][:N_NAMED]
    for price, (name, row) in zip(costs, found.items(), strict=True):
        cost = max(price, LEAST)
        colour = OURS if row.ours else OTHERS
        value, low, high = row.unseen_detected
        ax.plot([cost, cost], [low, high], color=colour, lw=0.8, alpha=0.7)
        ax.plot(cost, value, "o", color=colour, mfc="white", ms=5)
        ax.plot(cost, row.detected[0], "o", color=colour, ms=5)
        if row.ours or name in others:
            ax.annotate(
                name,
                (cost, row.detected[0] if row.ours else value),
                xytext=(-6 if row.fe > DEAR else 6, 3 if row.ours else -14),
                ha="right" if row.fe > DEAR else "left",
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
    ax.set_xscale("log")
    ax.set_ylim(0, 1.02)
    ax.grid(alpha=0.25)
