r"""Tables of what `clamping.py` measured.

python benchmarks/clamping_report.py --results benchmarks/results --out docs/bounds.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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
factor; brackets hold 95 % intervals; one draw of directions; FE is
forward-equivalents an image ({doc}`cost`). No attack knew of the detector:
{doc}`adaptive` is about those that do.

The clamp is off by default: it changes every figure of {doc}`detection`, and
attackers who know the detector have not been tried against it yet. **On a network of
your own, compare both on images that you attacked yourself**, as `curvdetect.attacks`
does it in a few lines.
"""
TABLES = {
    "clamping-strangers.json": """## Networks that nobody here trained

Networks of VNN-COMP 2021, test images. Without the clamp, what is shipped does little
better than chance on three of the five. With it, one of the three is as good as the
networks below; the other two are not, and boundaries take about three to four times as
long to find there.
""",
    "clamping.json": """## Networks it was developed on

The LeNets on development images, the ResNet-20 on training images.
""",
}
HEAD = (
    "| network | attack | images | clamp | FE | AUROC | detected at 5 % | relabelled "
    "| noise flagged |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    parts = [INTRODUCTION]
    for name, title in TABLES.items():
        parts += [title, table(json.loads((args.results / name).read_text()))]
    args.out.write_text("\n".join(parts))
    print(f"{args.out} is written")


def table(rows: list[dict[str, Any]]) -> str:
    """Return the default setting's rows, those of one attack beside each other."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["setting"] == "default" and row["draw"] == 0:
            pairs.setdefault((row["network"], row["attack"]), []).append(row)
    # The third of each is the plain network at the clamped one's step.
    lines = [line(row) for found in pairs.values() for row in found[:2]]
    return HEAD + "\n".join(lines) + "\n"


def line(row: dict[str, Any]) -> str:
    cells = [
        row["network"],
        row["attack"],
        f"{row['n_clean']} + {row['n_adversarial']}",
        "yes" if row["clamp"] else "no",
        f"{row['fe']:.0f}",
        figure(row["auroc"]),
        *(
            figure([100 * x for x in row[name]], 0, " %")
            for name in ("detected_at_5%", "relabelled", "noise_flagged_at_5%")
        ),
    ]
    return "| " + " | ".join(cells) + " |"


def figure(values: list[float], digits: int = 3, unit: str = "") -> str:
    value, low, high = (f"{x:.{digits}f}" for x in values)
    return f"{value}{unit} [{low}, {high}]"


if __name__ == "__main__":
    main()
