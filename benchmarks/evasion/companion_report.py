"""The page of companions, of attackers who know them, and of certificates."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.common.results import read
from benchmarks.common.tables import interval, table
from benchmarks.detection.learned_report import areas_of, mean, without_kind
from benchmarks.evasion.figures import (
    ATTACKERS_CELLS,
    ATTACKS,
    attackers_cells,
    smallest,
    stated,
)

__all__ = ["page"]


INTRODUCTION = """\
# Companions, and what votes certify

A companion is a second classifier that the guard asks about every image
({doc}`guide/companion`). Here it is a copy of the LeNet of the data set, or of the
ResNet-20, trained by {func}`~curvdetect.study.training.train_companion`; the networks
of others (VNN-COMP 2021) have the companion of our MNIST LeNet, which never saw them:
it has five times the weights of one of them, and a sixth of those of the others.

## What training reaches

On images held back from the training of the companion, of those that the network was
trained on itself. *Agrees*: on those that the network gets right. *To fool both*:
median of the smallest L2 norm found that fools the network while the companion gives
no larger odds against the wrong label than against those of 95 % of the clean images,
over what fools the network alone; by one simple attack, on two classes (60 images, some
50 of the sets of 500). Made by `python -m benchmarks companions`; of two
losses, the one with the larger last column was kept.

"""
TRAINED_HEAD = (
    "network",
    "images",
    "kept",
    "right (network)",
    "agrees",
    "to fool the network",
    "the companion",
    "both",
    "ratio",
    "s",
)
ATTACKERS = """\


## Attackers who know guard and companion

Medians of L2 norms over images that the network gets right and that are not flagged.
*To fool*: the smallest perturbation found that is misclassified; *to evade*: that is
misclassified and not flagged, at a threshold for 1 and for 5 % false positives;
*cost*: their ratio, and that image by image (median). For each image the smallest
norm over all attacks counts: those of {doc}`learned`, which make the companion agree
as well; {class}`~curvdetect.evasion.JointAttack`, the shortest way under all
conditions, on three classes and from the nearest unflagged image of another one, with
a stand-in of the guard, and with one that was taught again what the first search
found; ALMA, DDN and FMN of adv-lib on network and guard as one module
({class}`~curvdetect.evasion.JointModule`). *Shorter*: JointAttack alone, and going on
where the smallest perturbation led; *light*: on one class, by 100 steps instead of
150. *Never*: none found a way, which is not to say that there is none. The same guard
without a companion is in {doc}`learned`. Upper bounds, all of them. Made by
`python -m benchmarks learned-adaptive --companions`.

"""
ATTACKERS_HEAD = (
    "network",
    "images",
    "attacks",
    "agrees",
    "clean flagged at 1, 5 %",
    *ATTACKERS_CELLS,
)
CURVES = (
    "\n\n![Share of images misclassified and not flagged, against the norm of the "
    "change, for each network](images/evasion.png)\n"
)
EACH = """
### Each attack alone

Median of the smallest norms that it found, over the median norm that fools the network;
infinity where it finds nothing for half of the images.

"""
DECISIONS = """\


### Who sees decisions alone

HopSkipJump (foolbox), which is told the label and whether the image is flagged, at 5 %
false positives, and begins at the nearest unflagged image of another class; beside it
the same on the network alone. Median norms. Made by `python -m benchmarks
decision-attack`.

"""
DECISIONS_HEAD = (
    "network",
    "images",
    "questions an image",
    "to fool the network",
    "to evade the guard",
    "ratio",
    "where it begins",
)
OUTPUT = """\


## Attacks on the output

The guard's default relabels what it flags, so a false alarm is a wrong label. Median
norms of the smallest changes found of images that the network gets right and that are
not flagged: at which the network alone is wrong; at which an image that it still gets
right is flagged; at which what `predict` gives under "relabel" is wrong, in any way;
and under "reject": misclassified and not flagged. Where a wrong label is worse than
none, reject. Made by `python -m benchmarks output-attacks`.

"""
OUTPUT_HEAD = (
    "network",
    "false positives",
    "images",
    "the network wrong",
    "right and flagged",
    '"relabel" wrong',
    '"reject" wrong',
)
DETECTION = """\


## Attackers who do not know the guard

As in {doc}`learned`, on the same images, with the companion and without: mean AUROC
(worst attack), whole kinds left out, shares detected at 1 % and 5 %, and FE on clean
images. Made by `python -m benchmarks learned --companions`.

"""
DETECTION_HEAD = (
    "network",
    "passes of the companion",
    "AUROC",
    "without a companion",
    "whole kinds left out",
    "without",
    "detected at 1 %, 5 %",
    "without",
    "clean flagged at 1 %, 5 %",
    "FE",
    "without",
)
CERTIFIED = """\


## What votes certify

{class}`~curvdetect.VotingDetector`: a copy of each network, trained with Gaussian
noise of the deviation in the table, votes %(n_votes)s times; calibrated for 5 %% of
clean images flagged. Share of right clean test images with a certified radius of at
least half, one and two medians of the smallest norm found that fools the network:
within it, any fixed image that the network labels otherwise is flagged with
probability at least %(flagged)s over keys, with confidence %(confidence)s for each
image ({ref}`theory-votes`). *Tried*: attacks within the radius that fool the network,
and how many of them passed. FE is forward-equivalents an image to serve; a
certificate takes 1,000 passes of the companion. Made by `python -m benchmarks
certified`.

"""
PICTURE = (
    "![Share of images certified, and share that it takes more to fool, against the "
    "norm](images/certified.png)\n\n"
)
CERTIFIED_HEAD = (
    "network",
    "noise",
    "images",
    "votes needed",
    "t",
    "clean flagged",
    "median norm",
    "certified at 0.5",
    "at 1",
    "at 2",
    "tried, passed",
    "companion right",
    "FE",
)


def page() -> str:
    """Return the page."""
    adaptive, certified = read("learned_adaptive-companions"), read("certified")
    parts = [
        INTRODUCTION,
        table(TRAINED_HEAD, trained(read("companions"))),
        ATTACKERS,
        table(ATTACKERS_HEAD, [attackers(*of) for of in adaptive.items()]),
        CURVES,
        EACH,
        each_attack(adaptive),
        DECISIONS,
        table(
            DECISIONS_HEAD, [decisions(*of) for of in read("decision_attack").items()]
        ),
        OUTPUT,
        table(OUTPUT_HEAD, output(read("output_attacks"))),
        DETECTION,
        table(DETECTION_HEAD, detection()),
        CERTIFIED % stated(certified),
        PICTURE,
        table(CERTIFIED_HEAD, [votes(*of) for of in certified.items()]),
    ]
    return "".join(parts) + "\n"


def trained(known: dict[str, Any]) -> list[list[str]]:
    """Return a row for each training."""
    rows = []
    for network, sizes in known.items():
        for n, found in sorted(sizes.items(), key=lambda item: int(item[0])):
            alone, own = found["norm"]
            row = [
                network,
                f"{int(n):,}",
                found["loss"].replace(", step=1.5, warm_up=0.5", ""),
                f"{found['accuracy'][1]:.3f} ({found['accuracy'][0]:.3f})",
                f"{found['agreement']:.3f}",
                f"{alone:.3g}",
                f"{own:.3g}",
                f"{found['joint_norm']:.3g}",
                f"**{found['joint_norm'] / alone:.2f}**",
                str(found["seconds"]),
            ]
            rows.append(row)
    return rows


def attackers(name: str, found: dict[str, Any]) -> list[str]:
    """Return the row of a network for attackers who know guard and companion."""
    flagged = ", ".join(f"{share:.3f}" for share in found["flagged_clean"].values())
    agrees = "" if found["agreement"] is None else f"{found['agreement']:.3f}"
    row = [
        name,
        str(found["n"]),
        ATTACKS[found["attacks"]],
        agrees,
        flagged,
    ]
    return row + attackers_cells(found)


def each_attack(adaptive: dict[str, Any]) -> str:
    """Return a table of what each attack finds alone, at both rates."""
    names = list(
        dict.fromkeys(
            attack
            for found in adaptive.values()
            for norms in found["evading"].values()
            for attack in norms
        )
    )
    head = ["attack"]
    for name, found in adaptive.items():
        head += [f"{name} at {rate}" for rate in found["evading"]]
    rows = []
    for attack in names:
        row = [attack]
        for found in adaptive.values():
            fool = np.median(smallest(found["fooling"]))
            for norms in found["evading"].values():
                has = attack in norms
                row.append(f"{np.median(norms[attack]) / fool:.2f}" if has else "")
        rows.append(row)
    return table(head, rows)


def decisions(name: str, found: dict[str, Any]) -> list[str]:
    """Return the row of a network for an attacker who sees decisions alone."""
    norms = {of: float(np.median(values)) for of, values in found["norms"].items()}
    alone, guard = norms["the network alone"], norms["the guard"]
    return [
        name,
        str(found["n"]),
        " and ".join(f"{n:,}" for n in found["asked"].values()),
        f"{alone:.3g}",
        f"{guard:.3g}",
        f"**{guard / alone:.2f}**",
        f"{norms['the starts']:.3g}",
    ]


def output(known: dict[str, Any]) -> list[list[str]]:
    """Return a row for each network and rate, for attacks on the output."""
    rows = []
    for name, found in known.items():
        for rate, norms in found["norms"].items():
            medians = [f"{np.median(of):.3g}" for of in norms.values()]
            row = [name.removesuffix(" with a companion"), rate, str(found["n"])]
            rows.append([*row, *medians])
    return rows


def detection() -> list[list[str]]:
    """Return a row for each network, for attackers who do not know the guard."""
    without, rows = read("learned"), []
    for name, found in read("learned-companions").items():
        network = name.removesuffix(" with a companion")
        plain = without[network]
        flagged = [interval(figure) for figure in found["flagged_clean"].values()]
        rows.append(
            [
                network,
                f"{found['passes']:.2f}",
                f"**{mean_and_worst(found)}**",
                mean_and_worst(plain),
                without_kind(found),
                without_kind(plain) if found["without_kind"] else "",
                detected(found),
                detected(plain),
                ", ".join(flagged),
                f"{found['cost_clean']:.1f}",
                f"{plain['cost_clean']:.1f}",
            ]
        )
    return rows


def mean_and_worst(found: dict[str, Any]) -> str:
    areas = areas_of(found).values()
    return f"{np.mean(list(areas)):.3f} ({min(areas):.3f})"


def detected(found: dict[str, Any]) -> str:
    return ", ".join(mean(found["cells"], "detected", fpr) for fpr in ("0.01", "0.05"))


def votes(name: str, found: dict[str, Any]) -> list[str]:
    """Return the row of a network for its certificates."""
    tried = sum(of["tried"] for of in found["attacked"].values())
    passed = sum(of["passed"] for of in found["attacked"].values())
    row = [
        name,
        f"{found['sigma']:g}",
        str(found["n"]),
        f"{found['least_votes']} of {found['n_votes']}",
        f"{found['limit']:.2f}",
        interval(found["flagged_clean"]),
        f"{found['norm']:.3g}",
        interval(found["certified"]["0.5"]),
        f"**{interval(found['certified']['1.0'])}**",
        interval(found["certified"]["2.0"]),
        f"{tried}, {passed}",
        f"{found['companion_right'][0]:.3f}",
        f"{found['cost']:.0f}",
    ]
    return row
