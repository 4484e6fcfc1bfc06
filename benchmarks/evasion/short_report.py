"""What the README says of attackers who know the learned guard, and of certificates."""

from __future__ import annotations

import numpy as np

from benchmarks.common.results import read
from benchmarks.common.tables import interval, paragraph, table
from benchmarks.evasion.figures import evasion_costs, smallest, stated

__all__ = ["certified", "evasion", "other_ways"]


def evasion() -> str:
    """Return the README's table of what evasion costs.

    Beside it that of the same guard without a companion, where it was measured.
    """
    adaptive, without = read("learned_adaptive-companions"), read("learned_adaptive")
    head = (
        "network",
        "median norm to fool it",
        "cost at 5 %, at 1 %",
        "image by image",
        "without a companion",
    )
    rows = []
    for name, found in adaptive.items():
        fool = smallest(found["fooling"])
        evade = [smallest(norms) for norms in found["evading"].values()][::-1]
        alone = evasion_costs(without[name])[::-1] if name in without else []
        rows.append(
            [
                f"{name} ({found['n']} images)",
                f"{np.median(fool):.2f}",
                ", ".join(f"**{cost:.2f}**" for cost in evasion_costs(found)[::-1]),
                ", ".join(f"{np.median(e / fool):.2f}" for e in evade),
                ", ".join(f"{cost:.2f}" for cost in alone),
            ]
        )
    return table(head, rows)


def other_ways() -> str:
    """Return the README's table of what else an attacker may want, or know."""
    rows = []
    for name, found in read("decision_attack").items():
        norms = {of: np.median(values) for of, values in found["norms"].items()}
        asked = round(found["asked"]["the guard"], -2)
        what = f"evades, seeing decisions alone ({asked:,} queries)"
        network = f"{name} ({found['n']} images)"
        rows.append([what, network, norms["the network alone"], norms["the guard"]])
    found = read("output_attacks")["mnist with a companion"]
    norms = {of: np.median(values) for of, values in found["norms"]["0.05"].items()}
    fool, network = norms["network wrong"], f"mnist ({found['n']} images)"
    rows.append(
        ["evades, by the shortest way alone", network, fool, norms["reject wrong"]]
    )
    alarm = "is right and flagged, so relabelled wrong"
    rows.append([alarm, network, fool, norms["right and flagged"]])
    sizes = read("companions")["mnist"]
    largest = sizes[max(sizes, key=int)]
    network = f"mnist ({largest['n_attacked']} images)"
    rows.append(["fools the companion alone", network, *largest["norm"]])
    head = "what the image does, at 5 %", "network", "to fool the network", "to do so"
    cells = [[*row[:2], *(f"{norm:.2f}" for norm in row[2:])] for row in rows]
    ratios = [f"**{row[3] / row[2]:.2f}**" for row in rows]
    lines = [[*cell, ratio] for cell, ratio in zip(cells, ratios, strict=True)]
    return table([*head, "ratio"], lines)


def certified() -> str:
    """Return what the README says of what is proven, and a table."""
    known = read("certified")
    first, stands = next(iter(known.values())), stated(known)
    text = f"""
        What is *proven* is less, and holds against every attack. With
        {first["n_votes"]} votes of a companion trained with noise (`VotingDetector`;
        {first["cost"]:.0f} passes an image), an image within a radius R that the
        network labels otherwise is flagged with probability {stands["flagged"]} over
        keys of the noise ([statement and
        proof](docs/theory.md#votes-and-what-they-certify)). *Certified as far*: share
        of right images whose R is at least the median norm that fools the network.
    """
    rows = [
        [
            f"{name} ({found['n']} images)",
            interval(found["flagged_clean"]),
            f"{found['norm']:.2f}",
            interval(found["certified"]["1.0"], 2),
        ]
        for name, found in known.items()
    ]
    head = "network", "clean flagged at 5 %", "median norm that fools it"
    return paragraph(text) + "\n\n" + table([*head, "certified as far"], rows)
