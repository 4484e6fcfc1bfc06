r"""Tables of what `learned.py` measured.

python benchmarks/learned_report.py --results benchmarks/results --out docs/learned.md \
    --picture docs/images/learned_cost.png
"""

from __future__ import annotations

import argparse
import json
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

INTRODUCTION = """# What the learned guard reaches

{class}`~curvdetect.LearnedDetector`, the default of
{class}`~curvdetect.GuardedClassifier`, on networks of ours - LeNets, and for
Fashion-MNIST also a small vision transformer and a ConvNet with GELU -, on the public
ResNet-20 and on others that nobody here trained (VNN-COMP 2021). It is given clean
images and labels and nothing else: it attacks them itself, sets its threshold on
others, and is judged here by attacks of other hands on further images, right before and
wrong after: FGSM, PGD, APGD, CW, DeepFool and Square of torchattacks, at the budgets of
{doc}`detection`, and minimal perturbations; attacks that fool the network fewer than 50
times are left out. One fit, one draw; brackets hold 95 % intervals for the images at
hand; no attack knew of the detector: those that do are below. Made by
`benchmarks/learned.py`.
"""
SUMMARY = (
    "| network | accuracy; guarded at 1 %, 5 % | learned from | FE, clean | AUROC, "
    "mean | worst attack | whole kinds left out | detected at 1 %, 5 % | relabelled "
    "| and flagged at 5 % | clean flagged at 1 %, 5 % | noise flagged at 1 %, 5 % "
    "| fit, s |\n" + "| --- " * 13 + "|\n"
)
CELLS = (
    "| attack | success | norm | images | AUROC | without its kind | detected at 1 % "
    "| detected at 5 % | noise at 5 % | noise that fools | relabelled | FE |\n"
    + "| --- " * 12
    + "|\n"
)
ATTACKERS = (
    """## Attackers who know it

Medians of L2 norms over images that the network gets right and that are not flagged.
*To fool*: the smallest perturbation found that is misclassified; *to evade*: that is
misclassified and not flagged, at a threshold for 1 and for 5 % false positives; *cost*:
their ratio, and that image by image (median). For each image the smallest norm over
seven attacks counts: {class}`~curvdetect.evasion.AgreementAttack`, which makes the
network agree on a wrong class wherever the detector looks, evenly or not, on each of
two classes, and so with a {class}`~curvdetect.evasion.StandIn`, a smooth network that
was taught the detector's scores;
{class}`~curvdetect.evasion.NeighbourhoodMarginAttack`; and going on where the smallest
perturbation led, up to twelve times as far. *Best attack*: the one that is the best
alone. *Never*: none of them found a way, which is not to say that there is none.
These are upper bounds: a better attack would find shorter ones, and an attacker may
know more than these do. Made by `benchmarks/learned_adaptive.py`.

| network | images | to fool | to evade, 1 % | cost | by image | never | best attack """
    "| to evade, 5 % | cost | by image | never | best attack |\n"
    + "| --- " * 13
    + "|\n"
)
READING = """
*Learned from* counts the clean images given, of which a third to a half set the
threshold. *Whole kinds left out*: mean AUROC over gradient steps (FGSM, PGD, APGD), by
a detector that made none, and over short ones (CW, DeepFool, minimal norms), likewise.
*Noise* is as long as each of PGD's and the minimal perturbations, and does not fool
the network; how much does is in the tables below. *Guarded*: accuracy on all clean test
images, where flagged ones are relabelled, which is wrong for those flagged by mistake:
reject instead where that matters. *And flagged*: share of the adversarial
images that are flagged and relabelled right. FE is forward-equivalents an image
({doc}`cost`); the former default, one threshold on the largest of all curvatures, takes
217 on most of these networks.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, help="of AUROC by cost")
    args = parser.parse_args()
    curves = json.loads((args.results / "learned_curve.json").read_text())
    if args.picture:
        draw(curves).savefig(args.picture, dpi=110)
    known = json.loads((args.results / "learned.json").read_text())
    lines = [summary(name, found) for name, found in known.items()]
    parts = [INTRODUCTION, SUMMARY + "\n".join(lines) + "\n" + READING]
    parts.append(by_cost(curves))
    parts.append(truth(known))
    adaptive = json.loads((args.results / "learned_adaptive.json").read_text())
    parts.append(ATTACKERS + "\n".join(starmap(attackers, adaptive.items())) + "\n")
    for name, found in known.items():
        parts.append(f"## {name}\n\n{details(found)}")
    args.out.write_text("\n".join(parts))
    print(f"{args.out} is written")


def by_cost(curves: dict[str, Any]) -> str:
    """Say what more looking is worth."""
    lines = []
    for name, found in curves.items():
        points = [*found["learned"], found["threshold"]]
        row = [f"{p['auroc']:.3f} at {p['cost']:.1f}" for p in points]
        lines.append("| " + " | ".join([name, *row]) + " |")
    columns = len(next(iter(curves.values()))["learned"])
    head = " | ".join(["network", *["learned"] * columns, "threshold"])
    return f"""## What more looking is worth

![AUROC by cost, for the learned detector and the threshold](images/learned_cost.png)

Mean AUROC over the same attacks, at what a clean image cost on average (FE), for
budgets from 1 to 8; beside it 0.1's rule, the largest of all average curvatures. Made
by `benchmarks/learned_curve.py`.

| {head} |
{"| --- " * (columns + 2)}|
{chr(10).join(lines)}
"""


def draw(curves: dict[str, Any]) -> Any:
    """Draw it: a line for each network, and a cross for the threshold."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    ax = figure.subplots()
    for number, (name, found) in enumerate(curves.items()):
        color = f"C{number}"
        points = found["learned"]
        ax.plot(
            [p["cost"] for p in points],
            [p["auroc"] for p in points],
            "o-",
            color=color,
            label=name,
        )
        then = found["threshold"]
        ax.plot(then["cost"], then["auroc"], "x", color=color, ms=9, mew=2)
    ax.plot([], [], "x", color="0.3", ms=9, mew=2, label="threshold of curvature")
    ax.set(
        xscale="log",
        xlabel="forward-equivalents a clean image",
        ylabel="mean AUROC over the attacks",
    )
    ax.legend(frameon=False)
    return figure


def attackers(name: str, found: dict[str, Any]) -> str:
    """Return the row of a network for attackers who know the detector."""
    fool = np.min(list(found["fooling"].values()), axis=0)
    row = [name, str(found["n"]), f"{np.median(fool):.3g}"]
    for norms in found["evading"].values():
        evade = np.min(list(norms.values()), axis=0)
        medians = {attack: np.median(of) for attack, of in norms.items()}
        row += [
            f"{np.median(evade):.3g}",
            f"**{np.median(evade) / np.median(fool):.2f}**",
            f"{np.median(evade / fool):.2f}",
            f"{np.isinf(evade).mean():.2f}",
            min(medians, key=lambda attack: medians[attack]),
        ]
    return "| " + " | ".join(row) + " |"


def short_table(known: dict[str, Any]) -> str:
    """Return the README's table."""
    lines = [
        "| network (test accuracy) | attacks | AUROC, mean (worst) | without the kind "
        "| relabelled right | noise flagged at 5 % | FE, clean |",
        "| --- " * 7 + "|",
    ]
    for name, found in known.items():
        cells = found["cells"]
        areas = [cell["auroc"][0] for cell in cells.values()]
        without = [figure[0] for figure in found["without_kind"].values()]
        control = {a: c for a, c in cells.items() if a.startswith(("PGD", "minimal"))}
        row = [
            f"{name} ({found['accuracy'][0]:.3f})",
            str(len(cells)),
            f"{np.mean(areas):.3f} ({min(areas):.2f})",
            f"{np.mean(without):.3f}" if without else "",
            f"{np.mean([cell['relabelled'][0] for cell in cells.values()]):.2f}",
            mean(control, "flagged_noise", "0.05"),
            f"{found['cost_clean']:.1f}",
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def summary(name: str, found: dict[str, Any]) -> str:
    """Return a network's row."""
    cells = found["cells"]
    areas = {attack: cell["auroc"][0] for attack, cell in cells.items()}
    worst = min(areas, key=lambda attack: areas[attack])
    without = [figure[0] for figure in found["without_kind"].values()]
    control = {a: c for a, c in cells.items() if a.startswith(("PGD", "minimal"))}
    row = [
        name,
        f"{interval(found['accuracy'])}; "
        + ", ".join(f"{of[0]:.3f}" for of in found["guarded_accuracy"].values()),
        str(found["n_fit"]),
        f"{found['cost_clean']:.1f}",
        f"{np.mean(list(areas.values())):.3f}",
        f"{areas[worst]:.3f} ({worst})",
        f"{np.mean(without):.3f}" if without else "",
        ", ".join(mean(cells, "detected", fpr) for fpr in ("0.01", "0.05")),
        f"{np.mean([cell['relabelled'][0] for cell in cells.values()]):.3f}",
        mean(cells, "right", "0.05"),
        ", ".join(interval(figure) for figure in found["flagged_clean"].values()),
        ", ".join(mean(control, "flagged_noise", fpr) for fpr in ("0.01", "0.05")),
        f"{found['fit_seconds']:.0f}",
    ]
    return "| " + " | ".join(row) + " |"


def mean(cells: dict[str, Any], key: str, fpr: str) -> str:
    return f"{np.mean([cell[key][fpr][0] for cell in cells.values()]):.3f}"


def truth(known: dict[str, Any]) -> str:
    """Say how often the self-tests told what fresh images show."""
    cells, same = (
        sum(found["self_test"][key] for found in known.values())
        for key in ("cells", "same")
    )
    return f"""## Is the self-test true?

The same attacks as in the self-test of `fit`, by `assess_guard` on fresh images: the
95 % interval of the difference of the two AUROCs, each with its own clean images,
contains zero in {same} of {cells} cells ({same / cells:.1%}).
"""


def details(found: dict[str, Any]) -> str:
    """Return a network's table, and what else is known."""
    lines = []
    for attack, cell in found["cells"].items():
        alone = found["without_kind"].get(attack)
        row = [
            attack,
            interval(cell["success"]),
            f"{cell['norm']:.3g}",
            f"{found['n_clean']} + {cell['n']}",
            interval(cell["auroc"]),
            f"{alone[0]:.3f}" if alone else "",
            interval(cell["detected"]["0.01"]),
            interval(cell["detected"]["0.05"]),
            interval(cell["flagged_noise"]["0.05"]),
            f"{cell['noise_fools'][0]:.3f}",
            interval(cell["relabelled"]),
            f"{cell['cost']:.1f}",
        ]
        lines.append("| " + " | ".join(row) + " |")
    wrong = found["flagged_wrong"]
    classes = ", ".join(
        f"{label}: {flagged}/{n}"
        for label, (flagged, n) in found["flagged_by_class"].items()
    )
    said = "".join(f"\n> {warning}\n" for warning in found["warnings"])
    return f"""{CELLS}{chr(10).join(lines)}

Clean images that the network gets wrong ({wrong["n"]}): flagged
{interval(wrong["0.01"])} at 1 %, {interval(wrong["0.05"])} at 5 %. Clean ones flagged
at 5 %, by class: {classes}. What `fit` said:
{said}"""


def interval(figure: list[float]) -> str:
    value, low, high = figure
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    main()
