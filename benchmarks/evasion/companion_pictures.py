"""Pictures of who evades guard and companion, and of what votes certify."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common.results import read
from benchmarks.evasion.figures import smallest
from curvdetect.plotting import ADVERSARIAL, CLEAN, CertificateDisplay

__all__ = ["pictures"]


def pictures() -> dict[str, Figure]:
    """Return the pictures of what is certified, and of who evades."""
    return {
        "certified.png": draw(read("certified")),
        "evasion.png": curves(
            read("learned_adaptive-companions"), read("learned_adaptive")
        ),
    }


def curves(adaptive: dict[str, Any], alone: dict[str, Any]) -> Figure:
    """Return a picture of what share evades, against the budget, an axis a network."""
    rows = -(-len(adaptive) // 3)
    figure = Figure(figsize=(11, 3.1 * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, 3, squeeze=False)
    for ax in axes.flat[len(adaptive) :]:
        ax.axis("off")
    for ax, (name, found) in zip(axes.flat, adaptive.items(), strict=False):
        for label, norms, colour, style in lines_of(found, alone.get(name)):
            finite = np.sort(norms[np.isfinite(norms)])
            share = np.arange(1, len(finite) + 1) / len(norms)
            ax.step(
                np.concatenate([[0], finite]),
                np.concatenate([[0], share]),
                where="post",
                color=colour,
                ls=style,
                label=label,
            )
        ax.set_title(name, fontsize="medium")
        ax.set_xlabel("L2 norm of the change (input units)")
        ax.set_ylabel("misclassified, unflagged")
        ax.set_ylim(0, 1.02)
        ax.set_xlim(left=0)
    lines, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def lines_of(
    found: dict[str, Any], alone: dict[str, Any] | None
) -> list[tuple[str, np.ndarray, str, str]]:
    """Return label, norms, colour and style of each line of a network."""
    lines = [("the network alone", smallest(found["fooling"]), "0.6", "-")]
    for of, style, what in ((found, "-", "guard and companion"), (alone, ":", "guard")):
        if of is None:
            continue
        for (rate, norms), colour in zip(
            of["evading"].items(), (ADVERSARIAL, CLEAN), strict=True
        ):
            label = f"{what}, {100 * float(rate):g} %"
            lines.append((label, smallest(norms), colour, style))
    return lines


def draw(certified: dict[str, Any]) -> Figure:
    """Return a picture of what is certified, an axis a network."""
    size = 4.2 * len(certified), 3.4
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(1, len(certified), squeeze=False)
    for ax, (name, found) in zip(axes.flat, certified.items(), strict=True):
        display = CertificateDisplay(found["radius"], found["norms"]).plot(ax=ax)
        display.ax_.set_title(name, fontsize="medium")
        display.ax_.set_xlim(0, 2 * found["norm"])
    return figure
