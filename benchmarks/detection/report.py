"""The page of the detection benchmark, its pictures, and the README's part of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common.networks import LENETS, NETWORKS
from benchmarks.common.results import RESULTS
from benchmarks.common.tables import interval, paragraph, table
from benchmarks.detection.kinds import KINDS, WITHOUT

__all__ = ["page", "pictures", "remarks", "short_table"]

#: Options with which the committed results were made.
OPTIONS = {"cifar10": " --limit 100"}
#: The row made of the detectors that never saw the kind of the attack.
UNSEEN = "curvature, learned from other attacks"
#: By detector and attack.
Cells = dict[str, dict[str, dict[str, Any]]]


def page() -> str:
    """Return the page."""
    sections = [section(network, cells) for network, cells in measured().items()]
    return "\n".join([INTRODUCTION, *sections])


def pictures() -> dict[str, Figure]:
    """Return a map of all areas under the curve, for each network."""
    return {
        picture_of(network): draw(cells, NETWORKS[network].title)
        for network, cells in measured().items()
    }


def picture_of(network: str) -> str:
    return f"detection-{network}.png"


def measured() -> dict[str, Cells]:
    """Return the cells of every network that was measured."""
    paths = {name: RESULTS / f"detection-{name}.jsonl" for name in NETWORKS}
    return {
        name: arranged(path.read_text())
        for name, path in paths.items()
        if path.exists()
    }


def arranged(lines: str) -> Cells:
    """Return cells by detector and attack, with the row of unseen attacks."""
    found: Cells = {}
    for line in lines.splitlines():
        cell = json.loads(line)
        found.setdefault(cell["detector"], {})[cell["attack"]] = cell
    unseen = {}
    for detector in [name for name in found if name.startswith(WITHOUT)]:
        left_out = KINDS[detector.removeprefix(WITHOUT)]
        cells = found.pop(detector)
        unseen |= {a: c for a, c in cells.items() if a.startswith(left_out)}
    ordered = {}
    for detector, cells in found.items():
        ordered[detector] = cells
        if detector == "curvature, learned" and unseen:
            ordered[UNSEEN] = unseen
    return ordered


def attacks_of(cells: Cells) -> list[str]:
    """Return the attacks that do not know the detector."""
    others = ("none", "cost", "adaptive")
    return [a for a in cells["curvature"] if not a.startswith(others)]


def aurocs(cells: Cells) -> tuple[list[str], list[str], np.ndarray]:
    """Return detectors, attacks and the AUROC of each pair."""
    attacks = attacks_of(cells)
    names = [name for name, of in cells.items() if set(attacks) <= set(of)]
    values = [[cells[name][a]["auroc"][0] for a in attacks] for name in names]
    return names, attacks, np.asarray(values)


def draw(cells: Cells, title: str) -> Figure:
    """Draw a map of all areas under the curve."""
    names, attacks, values = aurocs(cells)
    figure = Figure(
        figsize=(2.6 + 0.62 * len(attacks), 1.6 + 0.34 * len(names)),
        layout="constrained",
        dpi=130,
    )
    ax = figure.subplots()
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
    figure.colorbar(drawn, label="AUROC (0.5: chance)", shrink=0.8)
    ax.set_title(title)
    return figure


# The page -------------------------------------------------------------------------


def section(network: str, cells: Cells) -> str:
    """Return one network's section."""
    first, clean = cells["curvature"], cells["curvature"]["none"]
    title = NETWORKS[network].title
    return f"""## {title}

`python -m benchmarks detection {network}{OPTIONS.get(network, "")}`, torch
{first["cost"]["torch"]}, {first["cost"]["machine"]}; learned from {clean["n_fit"]}
clean images, noisy ones and attacks on them (other packages: {clean["n_reference"]}
training images of the network), thresholds from {clean["n_calibration"]} others.

![AUROC of every detector against every attack](images/{picture_of(network)})

{by_detector(cells)}

{by_attack(cells)}

Detection rate at 1 % and at 5 % false positives (of the test images), and accuracy of
the guarded model on adversarial images (flagged and relabelled right, at the threshold
for 5 %):

{rates(cells)}
{adaptive(cells)}"""


def by_detector(cells: Cells) -> str:
    """Return a row for each detector, the best first."""
    names, _, values = aurocs(cells)
    rows = []
    for i in np.argsort(-values.mean(1)):
        clean, cost = (cells[names[i]].get(key) for key in ("none", "cost"))
        row = [names[i], f"{values[i].mean():.3f}", f"{values[i].min():.3f}"]
        row += [interval(clean["flagged_at_5%"]), noisy(clean)] if clean else ["-"] * 2
        if cost:
            row += [f"{cost['fe_per_image']:.0f}", f"{cost['ms_per_image']:.2f}"]
        rows.append(row + ["-"] * (7 - len(row)))
    head = "detector", "mean AUROC", "worst", "clean flagged (5 %)", "noisy flagged"
    return table([*head, "FE", "ms"], rows)


def noisy(clean: dict[str, Any]) -> str:
    """Return the range of what is flagged of noisy images."""
    noise = [v[0] for key, v in clean.items() if key.startswith("noise")]
    return f"{min(noise):.3f} to {max(noise):.3f}"


def ours_of(cells: Cells) -> list[str]:
    return [n for n in ("curvature", "curvature, learned", UNSEEN) if n in cells]


def by_attack(cells: Cells) -> str:
    """Return a row for each attack: what it is, and what ours make of it."""
    ours, first = ours_of(cells), cells["curvature"]
    head = ["attack", "success", "mean L2", "images"]
    for name in ours:
        head += [f"{name}: AUROC", "relabelled"]
    rows = []
    for attack in attacks_of(cells):
        of = first[attack]
        row = [attack, f"{of['success'][0]:.2f}", f"{of['norm'][0]:.2f}"]
        row += [f"{of['n_clean']} + {of['n_adversarial']}"]
        for name in ours:
            cell = cells[name][attack]
            row += [interval(cell["auroc"]), interval(cell["relabelled"])]
        rows.append(row)
    return table(head, rows)


def rates(cells: Cells) -> str:
    """Return what ours detect and guard, a row for each attack."""
    head, keys = ["attack"], ("tpr_at_1%", "tpr_at_5%", "guarded_accuracy")
    for name in ours_of(cells):
        head += [f"{name}: 1 %", "5 %", "guarded"]
    rows = [
        [a, *(f"{cells[n][a][key][0]:.2f}" for n in ours_of(cells) for key in keys)]
        for a in attacks_of(cells)
    ]
    return table(head, rows)


def adaptive(cells: Cells) -> str:
    """Return how all detectors do against attackers who know the default one."""
    attacks = [a for a in cells["curvature"] if a.startswith("adaptive")]
    if not attacks:
        return ""
    head, rows = ["detector"], []
    for a in attacks:
        head += [f"{a}: AUROC", "flagged (5 %)"]
    for name, of in cells.items():
        if set(attacks) <= set(of):
            row = [name]
            for a in attacks:
                row += [interval(of[a]["auroc"]), f"{of[a]['flagged'][0]:.2f}"]
            rows.append(row)
    successes = ", ".join(
        f"{a.removeprefix('adaptive: ')} {cells['curvature'][a]['success'][0]:.2f}"
        for a in attacks
    )
    return f"""
Attackers who know the default detector, within the (smaller) budget of PGD; nothing
learned from them. Misclassified: {successes}.

{table(head, rows)}
"""


# The README -----------------------------------------------------------------------


#: Detectors that the README compares, and how it calls them.
SHORT = {
    "curvature": "**curvature**: one threshold, nothing learned from attacks",
    "curvature, learned": "**curvature, learned** from all attacks, one model",
    UNSEEN: "**curvature, learned** from attacks of other kinds",
    "ART binary, images": "ART's binary detector on images, learned from all attacks",
    "ART binary, activations": "ART's binary detector on activations, likewise",
    "LID": "LID, likewise",
    "feature squeezing": "feature squeezing",
    "kernel density": "kernel density",
    "pytorch-ood MaxSoftmax": "pytorch-ood's MaxSoftmax",
}


def short_table() -> str:
    """Return the README's table: mean AUROC over the attacks, and the worst."""
    found = measured()
    areas: dict[str, dict[str, np.ndarray]] = {}
    for network, cells in found.items():
        names, _, values = aurocs(cells)
        for name, of in zip(names, values, strict=True):
            areas.setdefault(name, {})[network] = of
    best, called = best_other(areas)
    rows = [
        [title, *(f"{v.mean():.3f} ({v.min():.2f})" for v in areas[name].values())]
        for name, title in (SHORT | {best: called}).items()
    ]
    return table(["detector", *(NETWORKS[network].title for network in found)], rows)


def best_other(areas: dict[str, dict[str, np.ndarray]]) -> tuple[str, str]:
    """Return the best of pytorch-ood's other detectors, and how it is called."""
    others = [name for name in areas if name.startswith("pytorch-ood")]
    others = [name for name in others if name not in SHORT]
    mean = {name: np.mean([v.mean() for v in areas[name].values()]) for name in others}
    best = max(others, key=lambda name: mean[name])
    title = best.replace("pytorch-ood", "pytorch-ood's")
    return best, f"{title} (the best of its other {len(others)} on average)"


def remarks() -> str:
    """Say what the README's table does not: of PGD, clean images, cost, CIFAR-10."""
    found = measured()
    lenets = {name: found[name] for name in LENETS}
    rows = []
    for name in ("curvature", "curvature, learned"):
        for network, cells in lenets.items():
            pgd = cells[name][f"PGD {NETWORKS[network].budgets[0]}/255"]
            clean = cells[name]["none"]
            rows.append(
                [
                    f"{name}, {NETWORKS[network].title}",
                    interval(pgd["auroc"]),
                    interval(pgd["relabelled"]),
                    interval(clean["flagged_at_5%"]),
                    noisy(clean),
                    f"{cells[name]['cost']['fe_per_image']:.0f}",
                ]
            )
    head = ("detector", "AUROC, PGD", "relabelled", "clean flagged at 5 %")
    hardest = found["cifar10"]["curvature, learned"]["PGD 8/255"]
    squeezing = found["mnist"]["feature squeezing"]["cost"]["fe_per_image"]
    text = f"""
        Feature squeezing, slightly ahead on MNIST, restores images that were nearly
        black and white by one bit a pixel, for {squeezing:.0f} forward passes an image.
        What ours find hardest is one large step (FGSM) and twice the minimal norm. On
        CIFAR-10, with {found["cifar10"]["curvature"]["none"]["n_fit"]} images to learn
        from, the learned model has an AUROC of {hardest["auroc"][0]:.3f} after PGD at
        8/255, but relabels only {hardest["relabelled"][0]:.2f} right.
    """
    return table([*head, "noisy flagged", "FE"], rows) + "\n\n" + paragraph(text)


INTRODUCTION = f"""# Detection benchmark

Made by `python -m benchmarks detection NETWORK`.

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
