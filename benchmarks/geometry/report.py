"""Tables of curvatures, distances and regions for the page of results."""

from __future__ import annotations

from typing import Any

from benchmarks.common.networks import NETWORKS
from benchmarks.common.results import RESULTS, read
from benchmarks.common.tables import table

__all__ = ["estimators", "profiles", "regions", "scaling"]


def of_networks(name: str) -> dict[str, dict[str, Any]]:
    """Return the results of a measurement for each network that has some."""
    return {
        NETWORKS[network].title: read(f"{name}-{network}")
        for network in NETWORKS
        if (RESULTS / f"{name}-{network}.json").exists()
    }


def transposed(quantities: dict[str, Any], found: dict[str, dict[str, Any]]) -> str:
    """Return a row for each quantity, and a column for each network."""
    rows = [
        [what, *(value(of) for of in found.values())]
        for what, value in quantities.items()
    ]
    return table(["", *found], rows)


def profiles() -> str:
    """Return what the profiles of curvature show."""
    return transposed(PROFILES, of_networks("curvature_profile"))


def _times(of: dict[str, float]) -> str:
    return f"{of['in_S'] / of['random']:.1f}"


PROFILES = {
    "images": lambda r: r["n_images"],
    "principal curvatures smaller than 5 % of the largest": lambda r: (
        f"{r['relu']['near_zero']:.2f}"
    ),
    "how many exceed half of it": lambda r: f"{r['relu']['above_half_of_largest']:.1f}",
    "average curvature negative, at the boundary": lambda r: (
        f"{r['average']['0.1']['boundary_all']['negative']:.3f}"
    ),
    "at the image itself": lambda r: (
        f"{r['average']['0.1']['input_all']['negative']:.3f}"
    ),
    "extreme eigenvalues, medians": lambda r: (
        f"{r['relu']['largest']:.1f}, {r['relu']['smallest']:.1f}"
    ),
    "what bends along their eigenvectors": lambda r: (
        f"{r['relu']['along_largest']:.1f}, {r['relu']['along_smallest']:.1f}"
    ),
    "the same with softplus, exact": lambda r: (
        f"{r['softplus']['largest']:.1f}, {r['softplus']['smallest']:.1f}; "
        f"{r['softplus']['along_largest']:.1f}, {r['softplus']['along_smallest']:.1f}"
    ),
    "shared directions over random ones, softplus": lambda r: _times(
        r["softplus"]["shared"]["mean_absolute_curvature"]["exact"]
    ),
}


def regions() -> str:
    """Return what robustness and regions come to."""
    return transposed(REGIONS, of_networks("robustness"))


def _random_noise(r: dict[str, Any]) -> str:
    return f"{max(r['universal']['curves']['random']):.2f}"


def _universal(r: dict[str, Any]) -> str:
    return f"{r['universal']['l2']['norm'] / r['norms']['adversarial_median']:.0f}"


REGIONS = {
    "images": lambda r: r["adversarial"]["n_images"],
    "smallest perturbation within [0, 1], median over the best of others": lambda r: (
        f"{r['adversarial']['over_best_peer']:.3f}"
    ),
    "random direction over the smallest, without bounds": lambda r: (
        f"{r['norms']['random_over_adversarial']:.0f}"
    ),
    "universal perturbation that changes 90 %, over the smallest": _universal,
    "changed by random noise, at most": _random_noise,
    "pairs of one class that a path connects": lambda r: (
        f"{100 * r['paths']['found']:.0f} of {r['paths']['n_pairs']}"
    ),
    "by the straight line": lambda r: f"{100 * r['paths']['straight']:.0f}",
    "random combinations of two images that stay in their region": lambda r: (
        f"{r['convex']['2'][0]:.2f}"
    ),
    "of fifty": lambda r: f"{r['convex']['50'][0]:.2f}",
}


def estimators() -> str:
    """Return errors of estimates of the average curvature, over its mean size."""
    names = ("hutchinson", "orthogonal", "hutch++", "xtrace")
    rows = [
        [
            NETWORKS[cell["dataset"]].title,
            "softplus" if cell["network"] == "softplus" else "as it is",
            cell["n_products"],
            *(f"{cell[n]['rms'] / cell['mean_abs_curvature']:.3f}" for n in names),
        ]
        for cell in read("curvature_estimators")
    ]
    return table(["network", "activations", "products", *names], rows)


def scaling() -> str:
    """Return time and memory of principal curvatures in many dimensions."""
    rows = [
        [
            f"{cell['d']:,}",
            cell["k"],
            f"{cell['seconds']:.2f}",
            f"{cell['peak_mib']:,.0f}",
            f"{cell['products']:,}",
        ]
        for cell in read("principal_scaling")
    ]
    return table(["dimensions", "curvatures", "s", "MiB", "products"], rows)
