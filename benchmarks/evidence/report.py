"""The page of `detection`, and the README's part of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from benchmarks.common.results import read
from benchmarks.common.tables import interval, paragraph, table
from benchmarks.evasion.figures import evasion_costs
from benchmarks.evidence.attacks.base import KINDS
from benchmarks.evidence.detectors.ours import GUARD, GUARD_WITH_COMPANION
from benchmarks.evidence.picture import PICTURE
from benchmarks.evidence.results import (
    Found,
    Row,
    measured,
    met_later,
    mildly_corrupted,
    overall,
    rows,
)

__all__ = [
    "ahead",
    "later_in_short",
    "met_in_short",
    "page",
    "short_table",
    "tables",
    "what",
    "where_not",
]

#: Detectors of others in the README's table.
N_SHORT = 8
#: A peer of this AUROC undercuts where it costs less than a share of ours.
GOOD, CHEAPER = 0.9, 10
#: Corrupted images of a kind of which a share says something.
MANY = 20


def page() -> str:
    """Return the page."""
    return "\n\n".join(
        [
            INTRODUCTION,
            "## Where a peer is ahead",
            AHEAD,
            where_not(),
            cheaper(),
            "## All detectors",
            f"![Detection against cost](images/{PICTURE})",
            COLUMNS,
            table(*_table(overall().values())),
            OURS_ALONE,
            evasion(),
            "## Networks met later",
            LATER,
            later(),
            "Where a peer is ahead there, or not shown to be behind:",
            where_not(met_later()),
            "## AUROC by network, the kind of attack left out",
            by_network(),
            "## Clean images as users meet them",
            MET,
            met_by_users(),
            "## Who is ahead, image by image",
            COMPARED,
            ahead(),
            *[section(found) for found in measured().values()],
            "## The detectors",
            sources(),
            failures(),
        ]
    )


def tables(found: dict[str, Found]) -> str:
    """Return the table of all detectors, and that of all attacks on each network."""
    parts = [table(*_table(overall(found).values()))]
    return "\n\n".join([*parts, *map(section, found.values())])


def _table(found: Any) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return head and rows of the table of all detectors."""
    head = (
        "detector",
        "networks",
        "AUROC",
        "kind left out",
        "worst",
        "detected, 5 %",
        "kind left out",
        "FE",
        "time",
        "flagged: clean",
        "corrupted",
        "other data",
    )
    return head, [
        [
            f"**{row.name}**" if row.ours else row.name,
            str(row.n_networks),
            interval(row.auroc),
            interval(row.unseen),
            f"{row.worst:.2f}",
            f"{row.detected[0]:.2f}",
            f"{row.unseen_detected[0]:.2f}",
            f"{row.fe:.1f}",
            f"{row.slower:.1f}",
            f"{row.clean:.3f}",
            f"{row.corrupted:.3f}",
            "-" if np.isnan(row.other_data) else f"{row.other_data:.2f}",
        ]
        for row in found
    ]


def evasion() -> str:
    """Return what evasion costs, and what is certified, where it was measured."""
    alone, both = read("learned_adaptive"), read("learned_adaptive-companions")
    certified = read("certified")
    found: list[list[str]] = []
    for network in sorted({*alone, *both}):
        votes = certified.get(network, {}).get("certified", {}).get("0.5")
        found.append(
            [
                network,
                f"{min(evasion_costs(alone[network])):.2f}"
                if network in alone
                else "-",
                f"{min(evasion_costs(both[network])):.2f}" if network in both else "-",
                f"{votes[0]:.2f}" if votes else "-",
            ]
        )
    head = ("network", GUARD, GUARD_WITH_COMPANION, "certified at half the norm")
    return table(head, found)


def later() -> str:
    """Return three rows for each such network: ours, and the best peer."""
    lines = []
    for found in met_later().values():
        of = rows(found)
        best = next(row.name for row in of.values() if not row.ours)
        named = f"{found.title} ({found.attacks['accuracy'][0]:.3f})"
        for name in (GUARD, GUARD_WITH_COMPANION, best):
            row, cell = of[name], found.detectors[name]
            detected = f"{row.unseen_detected[0]:.2f}"
            lines.append([named, f"**{name}**" if row.ours else name])
            lines[-1] += [interval(row.unseen), f"{row.worst:.2f}", detected]
            lines[-1] += _met(cell)
            named = ""
    head = (
        "network (accuracy)",
        "detector",
        "AUROC, kind left out",
        "worst",
        "detected",
    )
    return table((*head, "flagged: clean", "corrupted", "worst kind"), lines)


def by_network() -> str:
    """Return a row for each detector and a column for each network."""
    found = {name: rows(of) for name, of in measured().items()}
    best = {
        name: max(row.unseen[0] for row in of.values()) for name, of in found.items()
    }
    lines = []
    for detector in overall():
        line = [detector]
        for name, of in found.items():
            if detector not in of:
                line.append("-")
                continue
            value = of[detector].unseen[0]
            line.append(f"**{value:.3f}**" if value == best[name] else f"{value:.3f}")
        lines.append(line)
    return table(["detector", *(of.title for of in measured().values())], lines)


def met_by_users() -> str:
    """Return a row for each network: what our guards flag of harmless images."""
    lines = []
    for found in measured().values():
        line = [found.title]
        for guard in (GUARD, GUARD_WITH_COMPANION):
            cell = found.detectors.get(guard)
            line += _met(cell) if cell else ["-"] * 3
        lines.append(line)
    head = ("clean", "corrupted, mean", "worst kind")
    return table(("network", *head, *(f"{of}, companion" for of in head)), lines)


def _met(cell: dict[str, Any]) -> list[str]:
    """Return shares flagged of clean and corrupted images, and of the worst kind."""
    counts, shares = mildly_corrupted(cell), _shares(cell)
    worst = max(shares, key=lambda name: shares[name], default=None)
    return [
        interval(cell["clean"][1]),
        f"{np.mean(list(shares.values())):.3f}" if shares else "-",
        f"{counts[worst][0]}/{counts[worst][1]}, {worst}" if worst else "-",
    ]


def _shares(cell: dict[str, Any]) -> dict[str, float]:
    """Return shares flagged by kind and severity, where they say something."""
    counts = mildly_corrupted(cell)
    return {name: flagged / n for name, (flagged, n) in counts.items() if n >= MANY}


# Who is ahead ---------------------------------------------------------------------


def peers(found: Found) -> dict[str, Any]:
    """Return the comparisons with detectors of others, the best of them first."""
    compared = {name: row for name, row in found.means.items() if "ahead" in row}
    return dict(sorted(compared.items(), key=lambda item: item[1]["ahead"][0]))


def _shown(row: dict[str, Any]) -> bool:
    """Say whether a peer is behind by more than chance makes, among so many peers."""
    return bool(row["ahead"][1] > 0 and row["p_holm"] < 0.05)


def ahead() -> str:
    """Return for each network the peer that comes nearest."""
    lines = []
    for found in measured().values():
        compared = peers(found)
        nearest, row = next(iter(compared.items()))
        shown = sum(map(_shown, compared.values()))
        lines.append(
            [
                found.title,
                interval(found.means[row["guard"]]["unseen"]),
                nearest,
                interval(row["unseen"]),
                interval(row["ahead"]),
                f"{row['p_holm']:.3f}",
                f"{shown} of {len(compared)}",
            ]
        )
    head = ("network", "ours", "nearest peer", "its AUROC", "ours ahead by", "p")
    return table([*head, "behind ours, shown"], lines)


def where_not(networks: dict[str, Found] | None = None) -> str:
    """Say of every network where a peer is ahead or not shown to be behind.

    Beside a peer that is ahead, what it and ours flag of corrupted clean images: who
    flags whatever is unusual detects attacks too.
    """
    lines = []
    for found in (measured() if networks is None else networks).values():
        compared, of = peers(found), rows(found)
        better = {n: r for n, r in compared.items() if r["ahead"][0] < 0}
        undecided = [
            n for n, r in compared.items() if n not in better and not _shown(r)
        ]
        said = [
            f"*{name}* is ahead by {_small(-row['ahead'][0])} (corrupted flagged: "
            f"{of[name].corrupted:.2f}, ours {of[row['guard']].corrupted:.2f})"
            for name, row in better.items()
        ]
        if undecided:
            listed = ", ".join(f"*{name}*" for name in undecided)
            said.append(f"not shown to be behind: {listed}")
        if said:
            lines.append(f"- **{found.title}**: {'; '.join(said)}.")
    return "\n".join(lines) or "On no network that was measured."


def _small(difference: float) -> str:
    return f"{difference:.4f}" if difference >= 0.0001 else "less than 0.0001"


def cheaper() -> str:
    """Say which peers above an AUROC of 0.9 cost less than a tenth of ours."""
    lines = []
    for found in measured().values():
        of = rows(found)
        limit = of[GUARD].slower / CHEAPER
        under = [
            f"{row.name} ({row.unseen[0]:.3f})"
            for row in of.values()
            if not row.ours and row.unseen[0] > GOOD and row.slower < limit
        ]
        if under:
            lines.append(f"{found.title}: {', '.join(under)}")
    said = "; ".join(lines) or "none"
    return paragraph(
        f"""Peers with an AUROC above {GOOD} where the kind is left out that take less
        than a tenth of the time of ours: {said}."""
    )


# By attack ------------------------------------------------------------------------


def section(found: Found) -> str:
    """Return one network's section: attacks, ours, and the best peer after each."""
    attacks, first = found.attacks["attacks"], found.attacks
    ordered = sorted(attacks, key=lambda n: (KINDS.index(attacks[n]["kind"]), n))
    head = ("kind", "attack", "success", "L2", "images", "AUROC", "kind left out")
    head += ("detected, 5 %", "with a companion, left out", "best peer, left out")
    accuracy = interval(first["accuracy"])
    return "\n\n".join(
        [
            f"## {found.title}",
            f"Of the clean test images {first['n_clean']} are right (accuracy "
            f"{accuracy}); torch {first['torch']}, {first['machine']}.",
            table(head, [by_attack(name, found) for name in ordered]),
        ]
    )


def by_attack(name: str, found: Found) -> list[Any]:
    """Return an attack's row."""
    of = found.attacks["attacks"][name]
    line = [of["kind"], name, f"{of['success'][0]:.2f}", f"{of['norm']:.2f}", of["n"]]
    areas = {
        detector: cell["attacks"][name]
        for detector, cell in found.detectors.items()
        if name in cell["attacks"]
    }
    if GUARD not in areas:
        return [*line, *["-"] * 5]
    own, both = areas[GUARD], areas.get(GUARD_WITH_COMPANION)
    others = {n: a[5] for n, a in areas.items() if not found.detectors[n]["ours"]}
    best = max(others, key=lambda detector: others[detector], default=None)
    return [
        *line,
        interval(own[:3]),
        f"{own[5]:.3f}",
        f"{own[4]:.2f}",
        f"{both[5]:.3f}" if both else "-",
        f"{best} {others[best]:.3f}" if best else "-",
    ]


def sources() -> str:
    """Return where every detector is from, and what it learns from."""
    cells: dict[str, dict[str, Any]] = {}
    for found in measured().values():
        cells |= found.detectors
    lines = [[name, cells[name]["source"], cells[name]["learns"]] for name in overall()]
    return table(("detector", "from", "learns from"), lines)


def failures() -> str:
    """Return what could not be measured, and why."""
    lines = [
        f"- {found.title}, {name}: `{said}`"
        for found in measured().values()
        for name, said in found.failed.items()
    ]
    return (
        "\n".join(["Not measured, because they failed:", "", *lines]) if lines else ""
    )


# The README -----------------------------------------------------------------------


def what() -> str:
    """Say how many detectors, networks and attacks there are."""
    found, kinds = measured(), ", ".join(KINDS)
    named = {name for of in found.values() for name in of.attacks["attacks"]}
    attacks = {re.sub(r"( x)? \d[\d./]*", "", name) for name in named}
    lines = {name: row.ours for name, row in overall().items()}
    ours = sum(lines.values())
    return paragraph(
        f"""{len(lines)} detectors ({ours} of ours and its seeds; the others are those
        of pytorch-ood and of ART that apply, and some written after their papers) on
        {len(found)} networks, after {len(attacks)} attacks at one or two budgets each:
        {kinds}."""
    )


def short_table() -> str:
    """Return the README's table: ours, and the best of others."""
    found = overall()
    others = [row for row in found.values() if not row.ours][:N_SHORT]
    ours = [found[name] for name in (GUARD, GUARD_WITH_COMPANION) if name in found]
    return table(*_table(sorted([*ours, *others], key=_by_unseen)))


def later_in_short() -> str:
    """Say in the README what our guards reach on networks that were met later."""
    found = met_later()
    means, by_network = overall(found), [rows(each) for each in found.values()]
    said = []
    for guard in (GUARD, GUARD_WITH_COMPANION):
        mean, worst = means[guard], min(of[guard].unseen[0] for of in by_network)
        said.append(
            f"{mean.unseen[0]:.3f} (worst network {worst:.3f}), with "
            f"{mean.unseen_detected[0]:.2f} detected at 5 %, {mean.clean:.3f} of clean "
            f"images flagged and {mean.corrupted:.3f} of corrupted ones"
        )
    best = next(
        row for row in means.values() if not row.ours and row.n_networks == len(found)
    )
    return paragraph(
        f"""On {len(found)} further networks of others that nobody here had looked at
        before, with nothing changed afterwards, the mean AUROC with the kind left out
        is {said[0]}; with a companion {said[1]}. The best peer there, *{best.name}*,
        has {best.unseen[0]:.3f}."""
    )


def met_in_short() -> str:
    """Say in the README how often our guards flag corrupted images that are right."""
    found, said = measured().values(), []
    for guard in (GUARD, GUARD_WITH_COMPANION):
        means = [rows(of)[guard].corrupted for of in found]
        worst = [max(_shares(of.detectors[guard]).values()) for of in found]
        said.append(
            f"{min(means):.3f} to {max(means):.3f} by network, and of the worst kind "
            f"{min(worst):.2f} to {max(worst):.2f}"
        )
    return paragraph(
        f"""Corrupted test images (noise, blur, contrast, brightness, JPEG, rotation;
        severity 1 to 3) that the network still gets right are flagged, at a threshold
        for 5 %, at rates of {said[0]}; with a companion {said[1]} (strong changes of
        contrast; [by network](docs/detection.md#clean-images-as-users-meet-them))."""
    )


def _by_unseen(row: Row) -> float:
    return -row.unseen[0]


INTRODUCTION = """# Detection benchmark

Made by `python -m benchmarks detection all --resume`.

Every detector sees the same images of the same networks, of ours and of other people,
after attacks of other hands (torchattacks, foolbox, adv-lib; minimal norms are ours
too). It learns from one set, clean images and - where it learns from attacks - what the
quick ones of the attacks made of 250 of them; its threshold is set on others, clean
alone; the figures are those of a third set. Our guard is given the clean ones alone,
and attacks them by itself. Detectors of others that learn what natural images look like
are given 5,000 images that the network was trained on. Clean images are those that the
network gets right, adversarial ones those that it gets right before and wrong after.

*Kind left out*: for each attack, the detector as it is when nothing of its kind was
learned from (gradient steps, minimal norm, few pixels, moved, black box; what is
transferred from another network counts as gradient steps). A detector that learns from
no attack, or from none of the kind, is the same there. Our guard makes gradient steps
and minimal norms, and no other kind. Means are over kinds, and within a kind over its
attacks that succeeded on at least 20 images. FE are forward-equivalents an image: a
backward pass counts as two; passes of a companion count, those of small networks that a
detector trained for itself do not. 95 % intervals in parentheses, by a bootstrap of
clean test images with all that was made of them."""
AHEAD = """In mean AUROC with the kind left out. Who flags whatever is unusual detects
attacks too: beside a peer, what it flags of clean images that were mildly corrupted and
that the network still gets right, at a threshold for 5 %."""
COLUMNS = """Means over networks; *worst* is the smallest AUROC of an attack on any
network; *time* is that of an image in times of the network alone, measured in turns
with it; *flagged* are shares of clean images at 5 %: as they are, corrupted (up to
severity 3, of those the network still gets right), of another data set (MNIST for
Fashion-MNIST and the other way round)."""
OURS_ALONE = """What attackers need who know a guard, as a multiple of what fools the
network alone (at 1 or 5 %, the lower), and the share of images that votes certify at
half the median norm that fools, are measured for ours alone:"""
LATER = """The other networks of VNN-COMP 2021 for MNIST and CIFAR-10 (but those of
cifar2020, which its repository does not hold) and the two vision transformers of 2023:
nobody here had looked at them when the guard was made, and nothing was changed after
they were measured. The three *kw* were trained to be robust, with a proof, against
changes of 2/255, the transformers against such attacks or bounds. AUROC and the share
detected at 5 % are means with the kind left out; *worst* is an attack's AUROC. The best
peer is that of those that are first, or come near ours, on a network above. The
companion is that of the data set: for CIFAR-10 one made of the ResNet-20, which gets
more images right than these networks do."""
MET = f"""Shares flagged at a threshold for 5 %: of clean test images; of those that
were corrupted as in CIFAR-10-C (noise, blur, contrast, brightness, JPEG) or turned by 2
to 10 degrees, up to severity 3, and that the network still gets right, on average over
kinds and severities; and of the worst of these, in counts. Kinds of which fewer than
{MANY} of 100 are still right are left out."""
COMPARED = """The learned guard and the peer that comes nearest to it (the guard with a
companion, where the peer asks one): the paired difference of the mean AUROC with the
kind left out, its 95 % interval over 2,000 resamples of the images, and the share of
resamples in which ours is not ahead, corrected for the number of peers (Holm). The last
column counts peers that are behind with an interval above zero and p below 0.05. A peer
that scored fewer images is compared on these."""
