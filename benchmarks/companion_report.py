r"""Tables of companions, of attackers who know them, and of certificates.

python benchmarks/companion_report.py --results benchmarks/results \
    --out docs/companion.md --picture docs/images/certified.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from curvdetect.plotting import ADVERSARIAL, CLEAN, CertificateDisplay

matplotlib.use("Agg")
#: In the names of results without a companion.
_ALONE = ", no companion"

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
50 of the sets of 500). Made by `benchmarks/companions.py`; of two
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
150. *Never*: none found a way, which is not to say that there is none. *No companion*:
the same guard without one; {doc}`learned` has other attacks on it, on 40 images. Upper
bounds, all of them. Made by `benchmarks/learned_adaptive.py --companions`.

"""
ATTACKERS_HEAD = (
    "network",
    "images",
    "attacks",
    "agrees",
    "clean flagged at 1, 5 %",
    "to fool",
    "to evade, 1 %",
    "cost",
    "by image",
    "never",
    "best attack",
    "to evade, 5 %",
    "cost",
    "by image",
    "never",
    "best attack",
)
CURVES = (
    "\n![Share of images misclassified and not flagged, against the norm of the "
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
the same on the network alone. Median norms. Made by `benchmarks/decision_attack.py`.

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
none, reject. Made by `benchmarks/output_attacks.py`.

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
images. Made by `benchmarks/learned.py --companions`.

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
certificate takes 1,000 passes of the companion. Made by `benchmarks/certified.py`.

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, help="of what is certified")
    args = parser.parse_args()

    def results(name: str) -> dict[str, Any]:
        return json.loads((args.results / f"{name}.json").read_text())

    adaptive = results("companion_adaptive")
    with_companion, without = results("companion_detection"), results("learned")
    certified = results("certified")
    first = next(iter(certified.values()))
    parts = [INTRODUCTION, table(TRAINED_HEAD, trained(results("companions")))]
    rows = [attackers(name, of) for name, of in adaptive.items()]
    parts += [ATTACKERS, table(ATTACKERS_HEAD, rows), CURVES]
    parts += [EACH, each_attack(adaptive)]
    decided = results("companion_decisions").items()
    parts += [DECISIONS, table(DECISIONS_HEAD, [decisions(*of) for of in decided])]
    parts += [OUTPUT, table(OUTPUT_HEAD, output(results("companion_output")))]
    rows = [
        detection(of, without[name.removesuffix(" with a companion")], name)
        for name, of in with_companion.items()
    ]
    parts += [DETECTION, table(DETECTION_HEAD, rows)]
    stated = {
        "n_votes": first["n_votes"],
        "flagged": f"{1 - first['level']:g}",
        "confidence": f"{first['confidence']:g}",
    }
    rows = [votes(name, found) for name, found in certified.items()]
    parts += [CERTIFIED % stated + PICTURE, table(CERTIFIED_HEAD, rows)]
    args.out.write_text("".join(parts))
    if args.picture:
        draw(certified).savefig(args.picture, dpi=110)
        curves(adaptive).savefig(args.picture.with_name("evasion.png"), dpi=110)
    print(f"{args.out} is written")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


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
    fool = smallest(found["fooling"])
    flagged = ", ".join(f"{share:.3f}" for share in found["flagged_clean"].values())
    kind = {"all": "all", "quick": "shorter", "light": "shorter, light"}
    agrees = "" if found["agreement"] is None else f"{found['agreement']:.3f}"
    row = [name, str(found["n"]), kind[found["attacks"]], agrees]
    row += [flagged, f"{np.median(fool):.3g}"]
    for norms in found["evading"].values():
        evade = smallest(norms)
        medians = {attack: np.median(of) for attack, of in norms.items()}
        row += [
            f"{np.median(evade):.3g}",
            f"**{np.median(evade) / np.median(fool):.2f}**",
            f"{np.median(evade / fool):.2f}",
            f"{np.isinf(evade).mean():.2f}",
            min(medians, key=lambda attack: medians[attack]),
        ]
    return row


def evasion_table(adaptive: dict[str, Any], without: dict[str, Any]) -> str:
    """Return the README's table of what evasion costs.

    Without a companion, where the same search was made, the lower of that and of the
    attacks of `learned_adaptive.json` counts.
    """
    head = (
        "network",
        "median norm to fool it",
        "cost at 5 %, at 1 %",
        "image by image",
        "without a companion",
    )
    rows = []
    for name, found in adaptive.items():
        if name.endswith(_ALONE):
            continue
        fool = smallest(found["fooling"])
        evade = [smallest(norms) for norms in found["evading"].values()][::-1]
        alone: Sequence[float] = []
        if name + _ALONE in adaptive:
            searches = adaptive[name + _ALONE], without[name]
            alone = np.min([costs(of)[::-1] for of in searches], axis=0)
        rows.append(
            [
                f"{name} ({found['n']} images)",
                f"{np.median(fool):.2f}",
                ", ".join(f"**{np.median(e) / np.median(fool):.2f}**" for e in evade),
                ", ".join(f"{np.median(e / fool):.2f}" for e in evade),
                ", ".join(f"{c:.2f}" for c in alone),
            ]
        )
    return table(head, rows)


def smallest(norms: dict[str, list[float]]) -> np.ndarray:
    return np.min(list(norms.values()), axis=0)


def costs(found: dict[str, Any]) -> list[float]:
    """Return the evasion cost at each rate."""
    fool = np.median(smallest(found["fooling"]))
    return [float(np.median(smallest(of)) / fool) for of in found["evading"].values()]


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


def detection(found: dict[str, Any], plain: dict[str, Any], name: str) -> list[str]:
    """Return the row of a network for attackers who do not know the guard."""

    def area(of: dict[str, Any]) -> str:
        values = [cell["auroc"][0] for cell in of["cells"].values()]
        return f"{np.mean(values):.3f} ({min(values):.3f})"

    def left_out(of: dict[str, Any]) -> str:
        values = [figure[0] for figure in of["without_kind"].values()]
        return f"{np.mean(values):.3f}" if values else ""

    def detected(of: dict[str, Any]) -> str:
        shares = [
            np.mean([cell["detected"][rate][0] for cell in of["cells"].values()])
            for rate in ("0.01", "0.05")
        ]
        return ", ".join(f"{share:.3f}" for share in shares)

    flagged = [
        f"{share:.3f} ({low:.3f}-{high:.3f})"
        for share, low, high in found["flagged_clean"].values()
    ]
    row = [
        name.removesuffix(" with a companion"),
        f"{found['passes']:.2f}",
        f"**{area(found)}**",
        area(plain),
        left_out(found),
        left_out(plain) if left_out(found) else "",
        detected(found),
        detected(plain),
        ", ".join(flagged),
        f"{found['cost_clean']:.1f}",
        f"{plain['cost_clean']:.1f}",
    ]
    return row


def votes(name: str, found: dict[str, Any]) -> list[str]:
    """Return the row of a network for its certificates."""

    def share(figure: list[float]) -> str:
        return "{:.3f} ({:.3f}-{:.3f})".format(*figure)

    tried = sum(of["tried"] for of in found["attacked"].values())
    passed = sum(of["passed"] for of in found["attacked"].values())
    row = [
        name,
        f"{found['sigma']:g}",
        str(found["n"]),
        f"{found['least_votes']} of {found['n_votes']}",
        f"{found['limit']:.2f}",
        share(found["flagged_clean"]),
        f"{found['norm']:.3g}",
        share(found["certified"]["0.5"]),
        f"**{share(found['certified']['1.0'])}**",
        share(found["certified"]["2.0"]),
        f"{tried}, {passed}",
        f"{found['companion_right'][0]:.3f}",
        f"{found['cost']:.0f}",
    ]
    return row


def curves(adaptive: dict[str, Any]) -> Any:
    """Return a picture of what share evades, against the budget, an axis a network."""
    shown = [name for name in adaptive if not name.endswith(_ALONE)]
    rows = -(-len(shown) // 3)
    fig, axes = plt.subplots(
        rows, 3, figsize=(11, 3.1 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(shown) :]:
        ax.axis("off")
    for ax, name in zip(axes.flat, shown, strict=False):
        found, alone = adaptive[name], adaptive.get(name + _ALONE)
        lines = [("the network alone", smallest(found["fooling"]), "0.6", "-")]
        kinds = (found, "-", "guard and companion"), (alone, ":", "guard")
        for of, style, what in kinds:
            if of is None:
                continue
            for (rate, norms), colour in zip(
                of["evading"].items(), (ADVERSARIAL, CLEAN), strict=True
            ):
                label = f"{what}, {100 * float(rate):g} %"
                lines.append((label, smallest(norms), colour, style))
        for label, norms, colour, style in lines:
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
    fig.legend(lines, labels, loc="outside lower center", ncols=5, frameon=False)
    return fig


def draw(certified: dict[str, Any]) -> Any:
    """Return a picture of what is certified, an axis a network."""
    fig, axes = plt.subplots(
        1, len(certified), figsize=(4.2 * len(certified), 3.4), layout="constrained"
    )
    for ax, (name, found) in zip(np.atleast_1d(axes), certified.items(), strict=True):
        display = CertificateDisplay(found["radius"], found["norms"]).plot(ax=ax)
        display.ax_.set_title(name, fontsize="medium")
        display.ax_.set_xlim(0, 2 * found["norm"])
    return fig


if __name__ == "__main__":
    main()
