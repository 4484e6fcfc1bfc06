"""The page of attackers who know the threshold of curvature, and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common.networks import NETWORKS
from benchmarks.common.results import RESULTS
from benchmarks.common.tables import interval, table

__all__ = ["page", "pictures", "short_table", "trained_against"]

#: Name, colour and marker of each attack.
STYLES = {
    "PGD": ("PGD, knows the network alone", "0.45", "o"),
    "logit matching": ("logit matching", "#009E73", "s"),
    "neighbourhood margin": ("neighbourhood margin", "#0072B2", "^"),
    "orthogonal PGD": ("orthogonal PGD", "#D55E00", "D"),
}


def measured() -> list[dict[str, Any]]:
    """Return all results, in the order of their files."""
    paths = sorted(RESULTS.glob("adaptive-*.json"))
    return [json.loads(path.read_text()) for path in paths]


def within_budgets(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of all attacks, in the order of the networks."""
    full = [results for results in found if "budgets" in results]
    return sorted(full, key=lambda of: list(NETWORKS).index(of["network"]))


def page() -> str:
    """Return the page."""
    found = measured()
    sections = [section(results) for results in within_budgets(found)]
    return "\n".join([INTRODUCTION, COSTS + costs(found) + "\n", *sections])


def pictures() -> dict[str, Figure]:
    """Return the picture of who evades within which budget."""
    return {"adaptive.png": draw(within_budgets(measured()))}


def draw(full: list[dict[str, Any]]) -> Figure:
    """Draw who evades within which budget."""
    figure = Figure(figsize=(4.2 * len(full), 3.8), layout="constrained", dpi=130)
    axes = figure.subplots(1, len(full), squeeze=False)
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
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def costs(found: list[dict[str, Any]]) -> str:
    """Return a row for each network and detector."""
    rows = []
    for results in found:
        for detector, cost in results["evasion"].items():
            by = cost["evasion_cost_by_attack"]
            rows.append(
                [
                    f"{NETWORKS[results['network']].title}, {weights_of(results)}",
                    detector,
                    results["n_images"],
                    f"{results['median_norm_to_fool']:.3f}",
                    f"{cost['median_norm_to_evade']:.3f}",
                    f"**{cost['evasion_cost']:.2f}**",
                    f"{cost['median_ratio']:.2f}",
                    f"{by['orthogonal PGD']:.2f}",
                    f"{by['neighbourhood margin']:.2f}",
                    f"{cost['not_evaded'][0]:.2f}",
                ]
            )
    return table(COSTS_HEAD, rows)


def section(results: dict[str, Any]) -> str:
    """Return one network's section."""
    rows = [
        [
            row["attack"],
            f"{255 * row['eps']:g}/255",
            *(interval(row[key], 2) for key in SHARES),
            interval(row["auroc"], 2) if "auroc" in row else "-",
        ]
        for row in results["budgets"]
    ]
    steps = [
        [row["steps"], *(interval(row[key], 2) for key in SHARES[:2])]
        for row in results["by_steps"]
    ]
    return f"""## {NETWORKS[results["network"]].title}

{results["n_images"]} images that the network gets right, thresholds from \
{results["n_calibration"]} others, {results["steps"]} steps, torch {results["torch"]}.
AUROC: of all misclassified ones against the images that set the thresholds. Orthogonal
PGD stops just below the threshold for 5 %, so its AUROC says little.

{table(BUDGETS_HEAD, rows)}

Orthogonal PGD at the second budget, by its steps:

{table(STEPS_HEAD, steps)}
"""


# The README -----------------------------------------------------------------------

#: What was tried to raise the evasion cost, in the order of the README's columns.
TRIED = (
    "no detector",
    "default",
    "secret directions",
    "three scales",
    "three scales and distance",
    "learned",
)


def short_table() -> str:
    """Return the README's table: who evades, and at which cost."""
    rows = []
    as_shipped = [of for of in measured() if of["weights"] == "as shipped"]
    for of in sorted(as_shipped, key=lambda of: list(NETWORKS).index(of["network"])):
        row = [f"{NETWORKS[of['network']].title} ({of['n_images']} images)"]
        row += [evading(of, "PGD"), evading(of, "orthogonal PGD")]
        costs = {name: cost["evasion_cost"] for name, cost in of["evasion"].items()}
        row += [f"{costs[name]:.2f}" if name in costs else "" for name in TRIED]
        rows.append(row)
    head = "network", "evades: PGD", "`EvasionAttack`", "cost: no detector"
    return table([*head, *TRIED[1:]], rows)


def evading(results: dict[str, Any], attack: str) -> str:
    """Return who evades within the report's budget, which is the second."""
    rows = [row for row in results.get("budgets", []) if row["attack"] == attack]
    return interval(rows[1]["evades_at_5%"], 2) if rows else ""


def trained_against() -> str:
    """Return what evading takes on networks trained to be flatter, or against PGD."""
    found = measured()
    plain = {
        of["network"]: of["median_norm_to_fool"]
        for of in found
        if of["weights"] == "as shipped"
    }
    rows = []
    for of in found:
        if of["weights"] != "as shipped":
            cost, network = of["evasion"]["default"], of["network"]
            times = cost["median_norm_to_evade"] / plain[network]
            rows.append(
                [
                    f"{NETWORKS[network].title}, {weights_of(of)}",
                    of["n_images"],
                    f"{times:.1f}",
                    f"{cost['evasion_cost']:.2f}",
                ]
            )
    head = "network", "images", "to evade, over what fools the plain network"
    return table([*head, "evasion cost"], rows)


def weights_of(results: dict[str, Any]) -> str:
    """Return how a network was trained, by the file of its weights."""
    name = Path(results["weights"]).stem.removesuffix("-weights")
    return name.removeprefix(results["network"] + "-")


SHARES = ("misclassified", "evades_at_5%", "evades_at_1%")
BUDGETS_HEAD = (
    "attack",
    "budget",
    "misclassified",
    "not flagged at 5 %",
    "at 1 %",
    "AUROC",
)
STEPS_HEAD = ("steps", "misclassified", "not flagged at 5 %")
COSTS_HEAD = (
    "network",
    "detector",
    "images",
    "to fool",
    "to evade",
    "cost",
    "by image",
    "orthogonal",
    "neighbourhood",
    "never",
)
COSTS = """## Evasion cost

Medians of L2 norms. *To fool*: the smallest perturbation that is misclassified; *to
evade*: the smallest found by either attack that is misclassified and not flagged, at a
threshold for 5 % false positives; *cost*: their ratio, that image by image (median),
and that of each attack alone. Upper bounds: a better attack would find shorter ones.

"""
INTRODUCTION = """# Attackers who know the detector

Made by `python -m benchmarks adaptive NETWORK`. It is about detectors of curvature,
the default of version 0.1 first of all; the learned guard is attacked on {doc}`its own
page <learned>`.

*PGD* knows the network alone. *Logit matching* gives an image the logits of a natural
image of another class. *Neighbourhood margin* makes the network wrong at random
neighbours of the image too. *Orthogonal PGD* (Bryniarski et al. 2022) differentiates
the detector's own score, and steps along what does not undo the misclassification. The
*learned* model, 0.1's classifier of curvatures, distances and laplacians that is taught
nine attacks, has no gradient: there the attacker differentiates a small network, taught
its scores on other images from features that have one, and the model itself judges.
With another such network an earlier run, whose results were not kept, evaded it at a
lower cost.

![Share of images that evade, by attack and budget](images/adaptive.png)
"""
