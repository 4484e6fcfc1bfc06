"""Which entries of other people's catalogues the guard answers, and how far."""

from __future__ import annotations

from typing import Any, NamedTuple

from curvdetect.report.guard.facts import Facts

__all__ = ["LINKS", "TITLE", "build"]

TITLE = "Entries of frameworks that it answers"


class _Entry(NamedTuple):
    """An entry: where it is, what the guard does of it, and what it leaves."""

    framework: str
    entry: str
    link: str
    answers: str
    leaves: str


_ENTRIES = (
    _Entry(
        "MITRE ATLAS",
        "AML.M0015, Adversarial Input Detection",
        "https://atlas.mitre.org/mitigations/AML.M0015",
        "A detector at inference, beside the model, of inputs that were crafted to "
        "evade it (AML.T0015, Evade AI Model; AML.T0043, Craft Adversarial Data). The "
        "self-test and the false positives on this page are its evidence.",
        "Patterns over many queries and where they come from. A GuardMonitor watches a "
        "stream for bursts; limits of how often a client may ask are for the service.",
    ),
    _Entry(
        "OWASP Machine Learning Security Top 10",
        "ML01:2023, Input Manipulation Attack",
        "https://owasp.org/www-project-machine-learning-security-top-10/docs/"
        "ML01_2023-Input_Manipulation_Attack",
        "Input validation: images that look manipulated are flagged, and rejected or "
        "relabelled.",
        "Adversarial training and robust models: the guard leaves the network as it "
        "is.",
    ),
    _Entry(
        "NIST AI 100-2 E2025",
        "Evasion attacks, and their mitigations",
        "https://csrc.nist.gov/pubs/ai/100/2/e2025/final",
        "White-box evasion of the network alone, by gradient steps and minimal "
        "perturbations, is tried here and detected as far as the tables say. A "
        "certificate by votes under noise, where there is one, is a form of "
        "randomised smoothing.",
        "Evasion by attackers who know the guard (unless it was measured), by queries "
        "alone, or by transfer from other networks; poisoning and privacy attacks.",
    ),
)
#: The only places outside that the page names.
LINKS = tuple(entry.link for entry in _ENTRIES)


def build(facts: Facts) -> dict[str, Any]:
    """Return the entries, which are the same for every guard."""
    return {"entries": _ENTRIES}
