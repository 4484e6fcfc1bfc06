"""The page of what `imagenet.py` measured.

python benchmarks/detection/imagenet_report.py --results benchmarks/results \
    --out docs/imagenet.md --picture docs/images/imagenet.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ALONE, COMPANION = "learned", "learned, with a companion"
CURVATURE = "curvature, five boundaries"
INTRODUCTION = """# Photographs: a network of ImageNet's size

EfficientNet-Lite0 (224 x 224 pixels, 1,000 classes), which nobody here trained, on
{n_images} photographs of ImageNet, one a class; it gets {accuracy} right. Of these, 150
went to `fit`, which learned from 100 and set its threshold with 50; 100 more set the
thresholds for 1 and 5 % here, together with those 50; the other {n_test} were attacked:
FGSM and PGD (10 steps) of torchattacks, and minimal L2 perturbations times 1.02 and 2.
Adversarial images are right before and wrong after. The companion is
EfficientNet-Lite1, as it comes, asked about the same pictures at 240 x 240 pixels.
Brackets hold 95 % intervals for the images at hand; one fit, one draw; no attack knew
of the detector: those that do were tried on smaller networks only ({{doc}}`companion`).

Made by `benchmarks/detection/imagenet.py`; torch {torch}, one thread on a CPU.

![AUROC by attack, with and without a companion, and of curvature](images/imagenet.png)
"""
WAYS = (
    "\n| way | FE, clean | ms an image | `fit`, s | memory, MiB | clean flagged at 1 % "
    "| at 5 % | wrong ones flagged at 5 % |\n" + "| --- " * 8 + "|\n"
)
READING = """
A forward pass takes {forward} ms here. FE: forward-equivalents, the companion's pass
({passes} of the network's) among them. *Memory*: the largest of the process that
fitted and judged, with all images; `fit` shared the two cores of the machine with other
work, which made it longer. *Wrong ones*: the {n_wrong} clean photographs that
the network gets wrong. Curvature is what 0.1 did, the largest average curvature of the
five nearest boundaries, on the first {n_curved} images of a set.
"""
CELLS = (
    "\n| attack | success | L2 norm | images | AUROC | detected at 1 % | at 5 % "
    "| noise as long, at 5 % | relabelled | FE |\n" + "| --- " * 10 + "|\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    found = json.loads((args.results / "imagenet.json").read_text())
    if args.picture:
        draw(found).savefig(args.picture, dpi=110)
    args.out.write_text(page(found))
    print(f"{args.out} is written")


def page(found: dict[str, Any]) -> str:
    """Return the page."""
    n = found["n"]
    parts = [
        INTRODUCTION.format(
            n_images=n["images"],
            accuracy=interval(found["accuracy"]),
            n_test=n["test"],
            torch=found["torch"],
        ),
        WAYS + "\n".join(ways(found)) + "\n",
        READING.format(
            forward=found["ms"]["forward pass"],
            passes=found[COMPANION]["passes"],
            n_wrong=found[ALONE]["flagged_wrong"]["n"],
            n_curved=max(c["n"] for c in found[CURVATURE]["cells"].values()),
        ),
    ]
    for way, title in ((ALONE, "Without a companion"), (COMPANION, "With a companion")):
        lines = [
            cell(attack, found["success"][attack], of, n["test"])
            for attack, of in found[way]["cells"].items()
        ]
        said = "\n".join(f"> {warning}\n" for warning in found[way]["warnings"])
        test = "\n".join(found[way]["self_test"])
        parts.append(
            f"\n## {title}\n{CELLS}" + "\n".join(lines) + "\n\nIts self-test says:\n\n"
            f"```text\n{test}\n```\n" + (f"\n{said}" if said else "")
        )
    return "".join(parts)


def ways(found: dict[str, Any]) -> list[str]:
    """Return a row for each way."""
    rows = []
    for way in (ALONE, COMPANION, CURVATURE):
        of = found[way]
        row = [way, f"{of['cost_clean']:.1f}", f"{found['ms'][way]:,}"]
        row += [f"{of['fit_seconds']:,}", f"{of['MiB']:,}"]
        if "flagged_clean" in of:
            row += [interval(of["flagged_clean"][rate]) for rate in ("0.01", "0.05")]
            row += [interval(of["flagged_wrong"]["0.05"])]
        rows.append("| " + " | ".join(row + [""] * (8 - len(row))) + " |")
    return rows


def cell(attack: str, success: list[float], of: dict[str, Any], n_clean: int) -> str:
    """Return a row for an attack."""
    row = [
        attack,
        f"{success[0]:.3f}",
        f"{of['norm']:.3g}",
        f"{n_clean} + {of['n']}",
        interval(of["auroc"]),
        interval(of["detected"]["0.01"]),
        interval(of["detected"]["0.05"]),
        interval(of["flagged_noise"]["0.05"]),
        interval(of["relabelled"]),
        f"{of['cost']:.1f}",
    ]
    return "| " + " | ".join(row) + " |"


def short_table(found: dict[str, Any]) -> str:
    """Return the README's table."""
    attacks = list(found[ALONE]["cells"])
    lines = [
        "| AUROC (relabelled) | " + " | ".join(attacks) + " | FE, clean | ms |",
        "| --- " * (len(attacks) + 3) + "|",
    ]
    for way in (ALONE, COMPANION, CURVATURE):
        row = [way]
        for attack in attacks:
            of = found[way]["cells"].get(attack)
            row.append(
                f"{of['auroc'][0]:.3f} ({of['relabelled'][0]:.2f})" if of else ""
            )
        row += [f"{found[way]['cost_clean']:.1f}", f"{found['ms'][way]:,}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def draw(found: dict[str, Any]) -> Any:
    """Draw AUROC by attack: a row an attack, a point and an interval a way."""
    figure = Figure(figsize=(6.6, 3.4), layout="constrained")
    ax = figure.subplots()
    attacks = list(found[ALONE]["cells"])
    for number, way in enumerate((COMPANION, ALONE, CURVATURE)):
        cells = found[way]["cells"]
        rows = [place for place, attack in enumerate(attacks) if attack in cells]
        areas = [cells[attacks[row]]["auroc"] for row in rows]
        value, low, high = zip(*areas, strict=True)
        beside = [row + 0.18 * (number - 1) for row in rows]
        ax.hlines(beside, low, high, color=f"C{number}", lw=1.5)
        ax.plot(value, beside, "o", color=f"C{number}", label=way)
    ax.axvline(0.5, color="0.7", lw=0.8)
    ax.set(xlabel="AUROC against clean photographs", xlim=(None, 1.01))
    ax.set_yticks(range(len(attacks)), attacks)
    ax.invert_yaxis()
    ax.legend(frameon=False, loc="lower left")
    return figure


def interval(figure: list[float]) -> str:
    value, low, high = figure
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    main()
