"""Tables and pictures of what `run.py` measured.

python benchmarks/detection/report.py --results benchmarks/results \
        --out docs/detection.md --pictures docs/images
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from kinds import KINDS, WITHOUT

sys.path.insert(0, str(Path(__file__).parents[1]))

from networks import NETWORKS

#: Options with which the committed results were made.
OPTIONS = {"cifar10": " --limit 100"}
#: The row made of the detectors that never saw the kind of the attack.
UNSEEN = "curvature, learned from other attacks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    args = parser.parse_args()
    pages = [INTRODUCTION]
    for network, of in NETWORKS.items():
        path = args.results / f"detection-{network}.jsonl"
        table = read(path) if path.exists() else {}
        if "cost" not in table.get("curvature", {}):  # not yet
            continue
        picture = args.pictures / f"detection-{network}.png"
        draw(table, of.title, picture)
        pages.append(page(table, network, of.title, picture.name))
    args.out.write_text("\n".join(pages))
    print(f"{args.out} is written")


def read(path: Path) -> dict[str, dict[str, dict]]:
    """Return cells by detector and attack, with the row of unseen attacks."""
    table: dict[str, dict[str, dict]] = {}
    for line in path.read_text().splitlines():
        cell = json.loads(line)
        table.setdefault(cell["detector"], {})[cell["attack"]] = cell
    unseen = {}
    for detector in [name for name in table if name.startswith(WITHOUT)]:
        left_out = KINDS[detector.removeprefix(WITHOUT)]
        cells = table.pop(detector)
        unseen |= {a: c for a, c in cells.items() if a.startswith(left_out)}
    ordered = {}
    for detector, cells in table.items():
        ordered[detector] = cells
        if detector == "curvature, learned" and unseen:
            ordered[UNSEEN] = unseen
    return ordered


def attacks_of(table) -> list[str]:
    others = ("none", "cost", "adaptive")
    return [a for a in table["curvature"] if not a.startswith(others)]


def aurocs(table) -> tuple[list[str], list[str], np.ndarray]:
    """Return detectors, attacks and the AUROC of each pair."""
    attacks = attacks_of(table)
    names = [name for name, cells in table.items() if set(attacks) <= set(cells)]
    values = [[table[name][a]["auroc"][0] for a in attacks] for name in names]
    return names, attacks, np.asarray(values)


def draw(table, title: str, path: Path) -> None:
    """Draw a map of all areas under the curve."""
    names, attacks, values = aurocs(table)
    fig, ax = plt.subplots(
        figsize=(2.6 + 0.62 * len(attacks), 1.6 + 0.34 * len(names)),
        constrained_layout=True,
    )
    drawn = ax.imshow(values, cmap="PuOr_r", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        dark = abs(value - 0.5) > 0.35
        ax.text(
            j,
            i,
            f"{value:.2f}" if value < 0.995 else f"{value:.3f}",
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if dark else "black",
        )
    ax.set_xticks(range(len(attacks)), attacks, rotation=40, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    fig.colorbar(drawn, label="AUROC (0.5: chance)", shrink=0.8)
    ax.set_title(title)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def page(table, network: str, title: str, picture: str) -> str:
    """Write one network's section."""
    names, attacks, values = aurocs(table)
    first = table["curvature"]
    order = np.argsort(-values.mean(1))
    rows = []
    for i in order:
        cells = table[names[i]]
        clean, cost = cells.get("none"), cells.get("cost")
        rows.append(
            f"| {names[i]} | {values[i].mean():.3f} | {values[i].min():.3f} | "
            + (flags(clean) if clean else "- | - |")
            + (
                f" {cost['fe_per_image']:.0f} | {cost['ms_per_image']:.2f} |"
                if cost
                else " - | - |"
            )
        )
    ours = [n for n in ("curvature", "curvature, learned", UNSEEN) if n in table]
    header = "".join(f" {name}: AUROC | relabelled |" for name in ours)
    details = []
    for attack in attacks:
        success, norm = first[attack]["success"], first[attack]["norm"]
        line = (
            f"| {attack} | {success[0]:.2f} | {norm[0]:.2f} | "
            f"{first[attack]['n_clean']} + {first[attack]['n_adversarial']} |"
        )
        for name in ours:
            cell = table[name][attack]
            line += f" {figure(cell['auroc'])} | {figure(cell['relabelled'])} |"
        details.append(line)
    rates = [f"| {a} |" + rates_of(table, ours, a) for a in attacks]
    clean = first["none"]
    return f"""## {title}

`python benchmarks/detection/run.py {network}{OPTIONS.get(network, "")}`, torch
{first["cost"]["torch"]}, {first["cost"]["machine"]}; learned from {clean["n_fit"]}
clean images, noisy ones and attacks on them (other packages: {clean["n_reference"]}
training images of the network), thresholds from {clean["n_calibration"]} others.

![AUROC of every detector against every attack](images/{picture})

| detector | mean AUROC | worst | clean flagged (5 %) | noisy flagged | FE | ms |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

| attack | success | mean L2 | images |{header}
| --- | --- | --- | --- |{" --- | --- |" * len(ours)}
{chr(10).join(details)}

Detection rate at 1 % and at 5 % false positives (of the test images), and accuracy of
the guarded model on adversarial images (flagged and relabelled right, at the threshold
for 5 %):

| attack |{"".join(f" {name}: 1 % | 5 % | guarded |" for name in ours)}
| --- |{" --- | --- | --- |" * len(ours)}
{chr(10).join(rates)}
{adaptive(table)}"""


def adaptive(table) -> str:
    """Write how all detectors do against attackers who know the default one."""
    attacks = [a for a in table["curvature"] if a.startswith("adaptive")]
    if not attacks:
        return ""
    rows = [
        f"| {name} |"
        + "".join(
            f" {figure(cells[a]['auroc'])} | {cells[a]['flagged'][0]:.2f} |"
            for a in attacks
        )
        for name, cells in table.items()
        if set(attacks) <= set(cells)
    ]
    successes = ", ".join(
        f"{a.removeprefix('adaptive: ')} {table['curvature'][a]['success'][0]:.2f}"
        for a in attacks
    )
    return f"""
Attackers who know the default detector, within the (smaller) budget of PGD; nothing
learned from them. Misclassified: {successes}.

| detector |{"".join(f" {a}: AUROC | flagged (5 %) |" for a in attacks)}
| --- |{" --- | --- |" * len(attacks)}
{chr(10).join(rows)}
"""


def flags(clean: dict) -> str:
    noise = [v[0] for key, v in clean.items() if key.startswith("noise")]
    return f"{figure(clean['flagged_at_5%'])} | {min(noise):.3f} to {max(noise):.3f} |"


def rates_of(table, ours: list[str], attack: str) -> str:
    cells = [table[name][attack] for name in ours]
    return "".join(
        f" {c['tpr_at_1%'][0]:.2f} | {c['tpr_at_5%'][0]:.2f} | "
        f"{c['guarded_accuracy'][0]:.2f} |"
        for c in cells
    )


def figure(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


INTRODUCTION = f"""# Detection benchmark

Made by `benchmarks/detection/report.py` from `benchmarks/results/detection-*.jsonl`.

Every detector sees the same images. It learns from one set, clean ones and - where it
learns from attacks - attacked ones; its threshold is set on a second, clean alone;
the figures are those of a third. For the LeNets the first two are training images
that the network was not trained on; for CIFAR-10 all are test images. Clean images
are those that the network gets right, adversarial ones those that it gets right
before the attack and wrong after. Attacks are torchattacks' (APGD 20 steps; CW c = 5,
100 steps, images clamped to [0.001, 0.999] first; Square 1,000 queries; DeepFool as
it comes), PGD has 40 steps, and the minimal norm is this package's. *Noisy* are the
clean test images with Gaussian noise as long as the perturbations of PGD and of the
minimal norm, times 1.02 and times 2: they should be flagged as rarely as clean ones.
95 % intervals in parentheses: bootstrap for AUROC, Wilson for shares. FE:
forward-equivalents an image (a backward pass counts as two), ms: milliseconds an
image, both of scoring 100 images that were not seen before; while other jobs ran
beside it, so milliseconds are rough, and detectors of other packages that run a
network of their own have its passes not counted.

- **curvature** is the package's default: one threshold on the largest curvature;
  nothing is learned from attacks.
- **curvature, learned** is scikit-learn's `HistGradientBoostingClassifier` on
  curvatures at three scales, distances and laplacians at six; its classes are the
  labels before the attack, and "not attacked", for which it learns clean images and
  noisy ones. It is one model for all attacks.
- **{UNSEEN}** is the same, where for each attack all of its kind (all budgets and
  lengths) were left out of what it learned from: gradient steps (FGSM, PGD, APGD),
  short ones (CW, DeepFool, minimal norm), black-box ones (Square).
- **curvature, learned from PGD**: PGD was the only attack that it learned from.
- **curvature, outliers**: an isolation forest on the same features of clean and noisy
  images.
- The others are detectors of pytorch-ood and ART as they come; LID, kernel density and
  feature squeezing are written after their papers, with scikit-learn and ART's
  squeezers (without non-local means). ART's and LID learn from all attacks; those of
  pytorch-ood and kernel density learn from images that the network was trained on.
"""


if __name__ == "__main__":
    main()
