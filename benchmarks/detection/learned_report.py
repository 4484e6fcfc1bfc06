"""The page of the learned guard, its picture, and the README's part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common.results import read
from benchmarks.common.tables import interval, table
from benchmarks.detection.corrupted import SEVERITIES
from benchmarks.detection.learned_curve import BUDGETS
from benchmarks.evasion.figures import ATTACKERS_CELLS, ATTACKS, attackers_cells

__all__ = [
    "hardest",
    "long_attacks",
    "page",
    "passes",
    "pictures",
]

RATES = ("0.01", "0.05")

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
`python -m benchmarks learned`.
"""
SUMMARY = (
    "network",
    "accuracy; guarded at 1 %, 5 %",
    "learned from",
    "FE, clean",
    "AUROC, mean",
    "worst attack",
    "whole kinds left out",
    "detected at 1 %, 5 %",
    "relabelled",
    "and flagged at 5 %",
    "clean flagged at 1 %, 5 %",
    "noise flagged at 1 %, 5 %",
    "fit, s",
)
CELLS = (
    "attack",
    "success",
    "norm",
    "images",
    "AUROC",
    "without its kind",
    "detected at 1 %",
    "detected at 5 %",
    "noise at 5 %",
    "noise that fools",
    "relabelled",
    "FE",
)
ATTACKERS = """## Attackers who know it

Medians of L2 norms over images that the network gets right and that are not flagged.
*To fool*: the smallest perturbation found that is misclassified; *to evade*: that is
misclassified and not flagged, at a threshold for 1 and for 5 % false positives; *cost*:
their ratio, and that image by image (median). For each image the smallest norm over all
attacks counts. *Shorter*: {class}`~curvdetect.evasion.JointAttack`, the shortest way
under all conditions, on three classes and from the nearest unflagged image of another
one, with a {class}`~curvdetect.evasion.StandIn` of the detector, a smooth network that
was taught its scores, and with one that was taught again what the first search found;
and going on where the smallest perturbation led, up to twelve times as far. *All*:
{class}`~curvdetect.evasion.AgreementAttack` too, which makes the network agree on a
wrong class wherever the detector looks, evenly or not, on each of two classes, with the
stand-in and without; {class}`~curvdetect.evasion.NeighbourhoodMarginAttack`; and ALMA,
DDN and FMN of adv-lib on network and guard as one module
({class}`~curvdetect.evasion.JointModule`). *Best attack*: the one that is the best
alone. *Never*: none of them found a way, which is not to say that there is none. These
are upper bounds: a better attack would find shorter ones, and an attacker may know more
than these do. `curvdetect evade` does it for a guard of yours ({doc}`guide/report`).
Made by `python -m benchmarks learned-adaptive`.

"""
ATTACKERS_HEAD = (
    "network",
    "images",
    "attacks",
    *ATTACKERS_CELLS,
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
({{doc}}`cost`); the former default, one threshold on the largest of all curvatures,
takes {threshold:.0f} on the LeNet.
"""


def page() -> str:
    """Return the page."""
    known, curves = read("learned"), read("learned_curve")
    adaptive = read("learned_adaptive")
    reading = READING.format(threshold=read("cost")[0]["fe"])
    parts = [
        INTRODUCTION,
        table(SUMMARY, [summary(*of) for of in known.items()]) + "\n" + reading,
        met_by_users(known),
        by_cost(curves),
        truth(known),
        ATTACKERS
        + table(ATTACKERS_HEAD, [attackers(*of) for of in adaptive.items()])
        + "\n",
    ]
    parts += [f"## {name}\n\n{details(found)}" for name, found in known.items()]
    return "\n".join(parts)


def pictures() -> dict[str, Figure]:
    """Return the picture of AUROC by cost."""
    return {"learned_cost.png": draw(read("learned_curve"))}


def met_by_users(known: dict[str, Any]) -> str:
    """Say what is flagged of clean images that are corrupted, and of each class."""
    rows = []
    for name, found in known.items():
        cells = [found["corrupted"][f"{kind} 3"] for kind in SEVERITIES]
        rows.append(
            [
                name,
                *(
                    f"{cell['right, 0.05'][0]:.3f} ({cell['n_right']})"
                    for cell in cells
                ),
                *(worst_corruption(found["corrupted"], rate) for rate in RATES),
                *(worst_class(found["flagged_by_class"][rate]) for rate in RATES),
            ]
        )
    head = [
        "network",
        *(f"{kind}, 3" for kind in SEVERITIES),
        *(f"worst to 3, at {float(rate):.0%}" for rate in RATES),
        *(f"worst class, at {float(rate):.0%}" for rate in RATES),
    ]
    return f"""## Clean images as users meet them

The test images are corrupted at five severities: noise, blur, contrast, brightness and
JPEG as in CIFAR-10-C, and rotation by 2 to 10 degrees. The table has the share flagged,
of the images that the network still gets right (their number in brackets): at 5 % and
severity 3; and for the worst kind up to severity 3, at 1 % and 5 %. The last columns
are about uncorrupted images: the class that is flagged most often, of some 400 images a
class (CIFAR-10: 40). The file of results also has the share flagged of corrupted images
that the network gets wrong, which is no fault.

{table(head, rows)}
"""


def worst_corruption(cells: dict[str, Any], rate: str) -> str:
    """Return the largest share flagged up to severity 3, and of which kind."""
    mild = [name for name in cells if int(name[-1]) <= 3]
    worst = max(mild, key=lambda name: cells[name][f"right, {rate}"][0])
    return f"{interval(cells[worst][f'right, {rate}'])}, {worst}"


def worst_class(classes: dict[str, list[int]]) -> str:
    """Return the class of which the largest share is flagged, in counts."""
    label, (flagged, n) = max(
        classes.items(), key=lambda of: of[1][0] / max(of[1][1], 1)
    )
    return f"{label}: {flagged}/{n}"


def by_cost(curves: dict[str, Any]) -> str:
    """Say what more looking is worth."""
    rows = []
    for name, found in curves.items():
        points = [*found["learned"], found["threshold"]]
        rows.append([name, *(f"{p['auroc']:.3f} at {p['cost']:.1f}" for p in points)])
    head = ["network", *(f"budget {budget}" for budget in BUDGETS), "threshold"]
    return f"""## What more looking is worth

![AUROC by cost, for the learned detector and the threshold](images/learned_cost.png)

Mean AUROC over the same attacks, at what a clean image cost on average (FE), of the
learned detector by its `budget`; beside it 0.1's rule, the largest of all average
curvatures. Made by `python -m benchmarks learned-curve`.

{table(head, rows)}
"""


def draw(curves: dict[str, Any]) -> Figure:
    """Draw it: a line for each network, and a cross for the threshold."""
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=110)
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


def attackers(name: str, found: dict[str, Any]) -> list[str]:
    """Return the row of a network for attackers who know the detector."""
    tried = ATTACKS[found["attacks"]]
    return [name, str(found["n"]), tried, *attackers_cells(found)]


def areas_of(found: dict[str, Any]) -> dict[str, float]:
    """Return the AUROC of each attack."""
    return {attack: cell["auroc"][0] for attack, cell in found["cells"].items()}


def without_kind(found: dict[str, Any]) -> str:
    """Return the mean AUROC of attacks of whose kind nothing was learned, or none."""
    areas = [figure[0] for figure in found["without_kind"].values()]
    return f"{np.mean(areas):.3f}" if areas else ""


def control(found: dict[str, Any], fpr: str) -> str:
    """Return what is flagged of noise as long as PGD's and smallest perturbations."""
    cells = {
        attack: cell
        for attack, cell in found["cells"].items()
        if attack.startswith(("PGD", "minimal"))
    }
    return mean(cells, "flagged_noise", fpr)


def mean(cells: dict[str, Any], key: str, fpr: str) -> str:
    return f"{np.mean([cell[key][fpr][0] for cell in cells.values()]):.3f}"


def passes() -> str:
    """Return what a clean image costs, from the cheapest network to the dearest."""
    costs = [found["cost_clean"] for found in read("learned").values()]
    return f"{min(costs):.0f} to {max(costs):.0f}"


def long_attacks() -> str:
    """Say how often attacks much longer than needed are relabelled right."""
    cells = read("learned")["cifar10"]["cells"]
    pgd, fgsm = (cells[f"{name} 8/255"]["relabelled"][0] for name in ("PGD", "FGSM"))
    return f"ResNet-20, 8/255: {pgd:.2f} after PGD, {fgsm:.2f} after FGSM"


def hardest() -> str:
    """Return what is detected at 1 % of one large step."""
    cell = read("learned")["cifar10"]["cells"]["FGSM 8/255"]
    return f"{cell['detected']['0.01'][0]:.2f} at 1 %"


def summary(name: str, found: dict[str, Any]) -> list[str]:
    """Return a network's row."""
    cells, areas = found["cells"], areas_of(found)
    worst = min(areas, key=lambda attack: areas[attack])
    guarded = ", ".join(f"{of[0]:.3f}" for of in found["guarded_accuracy"].values())
    return [
        name,
        f"{interval(found['accuracy'])}; {guarded}",
        str(found["n_fit"]),
        f"{found['cost_clean']:.1f}",
        f"{np.mean(list(areas.values())):.3f}",
        f"{areas[worst]:.3f} ({worst})",
        without_kind(found),
        ", ".join(mean(cells, "detected", fpr) for fpr in ("0.01", "0.05")),
        f"{np.mean([cell['relabelled'][0] for cell in cells.values()]):.3f}",
        mean(cells, "right", "0.05"),
        ", ".join(interval(figure) for figure in found["flagged_clean"].values()),
        ", ".join(control(found, fpr) for fpr in ("0.01", "0.05")),
        f"{found['fit_seconds']:.0f}",
    ]


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
    rows = []
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
        rows.append(row)
    wrong = found["flagged_wrong"]
    classes = ", ".join(
        f"{label}: {flagged}/{n}"
        for label, (flagged, n) in found["flagged_by_class"]["0.05"].items()
    )
    said = "".join(f"\n> {warning}\n" for warning in found["warnings"])
    return f"""{table(CELLS, rows)}

Clean images that the network gets wrong ({wrong["n"]}): flagged
{interval(wrong["0.01"])} at 1 %, {interval(wrong["0.05"])} at 5 %. Clean ones flagged
at 5 %, by class: {classes}. What `fit` said:
{said}"""
