"""The page of ``curvdetect reproduce``."""

from __future__ import annotations

from typing import Any

from curvdetect.report.sections import (
    average_curvature,
    boundary_section,
    figures_table,
    numbered_pictures,
    principal_curvatures,
    relabel_rank,
    scores,
)
from curvdetect.report.sections.base import Section

__all__ = ["ALONE", "COMPARED", "THEIRS", "page"]

#: Pictures of the network alone, by the numbers of the report's.
ALONE: dict[int, Section] = {2: boundary_section, 3: principal_curvatures}
#: Pictures of what was measured, once for each method.
COMPARED: dict[int, Section] = {4: average_curvature, 5: scores, 6: relabel_rank}
#: The report's own figures.
THEIRS = {
    "detection accuracy": figures_table.REPORT_ACCURACY,
    "AUROC": "not given",
    "relabelling accuracy": figures_table.REPORT_RELABELLING,
}
#: What was measured elsewhere; a test compares it with those results.
BEYOND = """That natural images have negative and perturbed ones positive curvature, and
that the more curved image is the perturbed one, holds on this LeNet and on networks
like it. It does not hold on every network: of 26 that were measured, 18 of them other
people's, the signs are the same on 8 and the rule on 13, and on 2 it is the other way
round (`python -m benchmarks curvature-sign`; the table is on the documentation's page
of results). What to use there is `LearnedDetector`, which learns on each network what
attacks look like."""


def page(results: dict[str, Any]) -> str:
    """Write the page in Markdown, from what is in results.json."""
    n, eps = scores.N_EACH, round(255 * results["attack"]["eps"])
    return f"""# The report's experiment on {results["dataset"]}

`curvdetect reproduce --dataset {results["dataset"]}` with curvdetect \
{results["versions"]["curvdetect"]}, torch {results["versions"]["torch"]}, seed \
{results["seed"]}: {results["network"]}; PGD, L-infinity, {eps}/255, 40 steps, which \
fooled it on {results["n_adversarial"]} of {results["n_clean"]} test images \
({results["success"]:.0%}).

{n} natural and {n} perturbed pictures, of different images; the threshold is the best \
one
for these {2 * n}, as in the report. Mean over {results["n_draws"]:,} draws, and the \
range of
95 % of them.

{figures_table.as_markdown(THEIRS, results["figures"])}

A threshold that is chosen on the pictures it is judged by flatters every method, by the
same rule here as there; the detection benchmark sets it on other images.

## Beyond this LeNet

{BEYOND}

## Figures

{numbered_pictures.as_markdown(ALONE, COMPARED)}
"""
