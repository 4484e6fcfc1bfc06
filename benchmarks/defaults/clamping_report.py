"""The page of probes within the bounds, and of networks of other people."""

from __future__ import annotations

from typing import Any

from benchmarks.common.results import read
from benchmarks.common.tables import interval, table

__all__ = ["page"]

INTRODUCTION = """# Probes within the bounds, and networks of other people

The curvature of a boundary is measured with probes around a point on it, and the
search for that point is free to leave the range of images, [0, 1]. So what is
measured may be a place where no image lies. `TorchModel(clamp=True)` measures
x -> f(clamp(x)) instead: the network as images within the bounds show it.

Below, the same images and attacks without and with it, each at the step that
`step="auto"` chooses for it: AUROC of the largest curvature, detected at a
false-positive rate of 5 % on the clean images of the same table, relabelled to the
label before the attack, and, as a control, clean images with noise as long as the
attack's perturbation that are flagged at the same threshold. Adversarial images are
those that were right before and wrong after; a minimal perturbation is L2, times the
factor; in parentheses 95 % intervals; one draw of directions; FE is
forward-equivalents an image ({doc}`cost`). No attack knew of the detector:
{doc}`adaptive` is about those that do.

The clamp is off by default: it changes every figure of {doc}`detection`, and
attackers who know the detector have not been tried against it yet. **On a network of
your own, compare both on images that you attacked yourself**, as `curvdetect.attacks`
does it in a few lines. Made by `python -m benchmarks clamping`.
"""
TABLES = {
    "clamping-strangers": """## Networks that nobody here trained

Networks of VNN-COMP 2021, test images. Without the clamp, what is shipped does little
better than chance on three of the five. With it, one of the three is as good as the
networks below; the other two are not, and boundaries take about three to four times as
long to find there.
""",
    "clamping": """## Networks it was developed on

The LeNets on development images, the ResNet-20 on training images.
""",
}
HEAD = (
    "network",
    "attack",
    "images",
    "clamp",
    "FE",
    "AUROC",
    "detected at 5 %",
    "relabelled",
    "noise flagged",
)


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for name, title in TABLES.items():
        parts += [title, table(HEAD, default_rows(read(name))) + "\n"]
    return "\n".join(parts)


def default_rows(cells: list[dict[str, Any]]) -> list[list[str]]:
    """Return the default setting's rows, those of one attack beside each other."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        if cell["setting"] == "default" and cell["draw"] == 0:
            pairs.setdefault((cell["network"], cell["attack"]), []).append(cell)
    # The third of each is the plain network at the clamped one's step.
    return [row(cell) for found in pairs.values() for cell in found[:2]]


def row(cell: dict[str, Any]) -> list[str]:
    """Return the row of one measurement."""
    shares = ("detected_at_5%", "relabelled", "noise_flagged_at_5%")
    return [
        cell["network"],
        cell["attack"],
        f"{cell['n_clean']} + {cell['n_adversarial']}",
        "yes" if cell["clamp"] else "no",
        f"{cell['fe']:.0f}",
        interval(cell["auroc"]),
        *(interval(cell[key], 2) for key in shares),
    ]
