"""Tables and a picture of what `adaptive.py` measured.

python benchmarks/adaptive_report.py --results benchmarks/results \
        --out docs/adaptive.md --picture docs/images/adaptive.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from networks import NETWORKS

#: Name, colour and marker of each attack.
STYLES = {
    "PGD": ("PGD, knows the network alone", "0.45", "o"),
    "logit matching": ("logit matching", "#009E73", "s"),
    "neighbourhood margin": ("neighbourhood margin", "#0072B2", "^"),
    "orthogonal PGD": ("orthogonal PGD", "#D55E00", "D"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    args = parser.parse_args()
    found = [
        json.loads(path.read_text())
        for path in sorted(args.results.glob("adaptive-*.json"))
    ]
    full = [results for results in found if "budgets" in results]
    full.sort(key=lambda results: list(NETWORKS).index(results["network"]))
    draw(full, args.picture)
    parts = [INTRODUCTION.replace("PICTURE", args.picture.name), costs(found)]
    args.out.write_text("\n".join(parts + [within(results) for results in full]))
    print(f"{args.out} is written")


def draw(full: list[dict], path: Path) -> None:
    """Draw who evades within which budget."""
    fig, axes = plt.subplots(
        1,
        len(full),
        figsize=(4.2 * len(full), 3.8),
        constrained_layout=True,
        squeeze=False,
    )
    for ax, results in zip(axes[0], full, strict=True):
        for attack, (label, color, marker) in STYLES.items():
            rows = [row for row in results["budgets"] if row["attack"] == attack]
            ax.plot(
                [255 * row["eps"] for row in rows],
                [row["evades_at_5%"][0] for row in rows],
                color=color,
                marker=marker,
                label=label,
            )
        ax.set_xscale("log", base=2)
        ticks = sorted({255 * row["eps"] for row in results["budgets"]})
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.set(
            title=NETWORKS[results["network"]].title,
            xlabel="L-infinity budget (1 / 255)",
            ylabel="misclassified and not flagged",
            ylim=(-0.02, 1.05),
        )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def costs(found: list[dict]) -> str:
    rows = []
    for results in found:
        weights = Path(results["weights"]).stem.removesuffix("-weights")
        weights = weights.removeprefix(results["network"] + "-")
        for detector, cost in results["evasion"].items():
            by = cost["evasion_cost_by_attack"]
            rows.append(
                f"| {NETWORKS[results['network']].title}, {weights} | {detector} | "
                f"{results['n_images']} | {results['median_norm_to_fool']:.3f} | "
                f"{cost['median_norm_to_evade']:.3f} | "
                f"**{cost['evasion_cost']:.2f}** | {cost['median_ratio']:.2f} | "
                f"{by['orthogonal PGD']:.2f} | {by['neighbourhood margin']:.2f} | "
                f"{cost['not_evaded'][0]:.2f} |"
            )
    return f"""## Evasion cost

Medians of L2 norms. *To fool*: the smallest perturbation that is misclassified; *to
evade*: the smallest found by either attack that is misclassified and not flagged, at a
threshold for 5 % false positives; *cost*: their ratio, that image by image (median),
and that of each attack alone. Upper bounds: a better attack would find shorter ones.

{COSTS}
{chr(10).join(rows)}
"""


def within(results: dict) -> str:
    """Write one network's section."""
    rows = [
        f"| {row['attack']} | {255 * row['eps']:g}/255 | "
        f"{share(row['misclassified'])} | {share(row['evades_at_5%'])} | "
        f"{share(row['evades_at_1%'])} | "
        + (share(row["auroc"]) if "auroc" in row else "-")
        + " |"
        for row in results["budgets"]
    ]
    steps = [
        f"| {row['steps']} | {share(row['misclassified'])} | "
        f"{share(row['evades_at_5%'])} |"
        for row in results["by_steps"]
    ]
    return f"""## {NETWORKS[results["network"]].title}

{results["n_images"]} images that the network gets right, thresholds from \
{results["n_calibration"]} others, {results["steps"]} steps, torch {results["torch"]}.
AUROC: of all misclassified ones against the images that set the thresholds. Orthogonal
PGD stops just below the threshold for 5 %, so its AUROC says little.

| attack | budget | misclassified | not flagged at 5 % | at 1 % | AUROC |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

Orthogonal PGD at the second budget, by its steps:

| steps | misclassified | not flagged at 5 % |
| --- | --- | --- |
{chr(10).join(steps)}
"""


def share(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.2f} ({low:.2f}-{high:.2f})"


COSTS = (
    "| network | detector | images | to fool | to evade | cost | by image | "
    "orthogonal | neighbourhood | never |\n" + "| --- " * 10 + "|"
)

INTRODUCTION = """# Attackers who know the detector

Made by `benchmarks/adaptive_report.py` from what `benchmarks/adaptive.py` measured. It
is about detectors of curvature, 0.1's default first of all; the learned guard is
attacked on {doc}`its own page <learned>`.

*PGD* knows the network alone. *Logit matching* gives an image the logits of a natural
image of another class. *Neighbourhood margin* makes the network wrong at random
neighbours of the image too. *Orthogonal PGD* (Bryniarski et al. 2022) differentiates
the detector's own score, and steps along what does not undo the misclassification. The
*learned* model of the detection benchmark, whose threshold that benchmark sets, has no
gradient: there the attacker differentiates a small network, taught its scores on other
images from features that have one, and the model itself judges. With another such
network an earlier run evaded it at a cost of 1.31 on Fashion-MNIST.

![Share of images that evade, by attack and budget](images/PICTURE)
"""


if __name__ == "__main__":
    main()
