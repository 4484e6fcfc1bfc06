"""What was calibrated on what: thresholds, rates, how many images."""

from __future__ import annotations

from typing import Any

from curvdetect.estimators import (
    CurvatureThresholdDetector,
    LearnedDetector,
    VotingDetector,
)
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import figure

__all__ = ["TITLE", "build"]

TITLE = "The calibration"


def build(facts: Facts) -> dict[str, Any]:
    """Return the rows of a table, and what the promise of a rate rests on."""
    detector = facts.guard.detector_
    rows = [("Detector", type(detector).__name__)]
    clean = getattr(detector, "clean_scores_", None)
    target = facts.target_fpr
    if target is not None:
        rows.append(("Target false-positive rate", _rate(target)))
    if clean is not None:
        rows.append(("Clean images that set the threshold", f"{len(clean):,} images"))
    rows += _threshold(facts)
    if isinstance(detector, VotingDetector) and detector.detector_ is not None:
        rows += [
            (f"{name}, of the learned detector in it", value)
            for name, value in _of_learned(detector.detector_)
        ]
    learned = isinstance(detector, LearnedDetector)
    return {
        "rows": rows,
        "promised": target is not None and clean is not None,
        "learned": _images_of(detector) if learned else "",
        "n": 0 if clean is None else len(clean),
    }


def _rate(target: float) -> str:
    return f"{figure(target)} (share of clean images that may be flagged)"


def _threshold(facts: Facts) -> list[tuple[str, str]]:
    """Return what is compared with what, in its units."""
    detector = facts.guard.detector_
    if isinstance(detector, LearnedDetector):
        return _of_learned(detector)
    if isinstance(detector, VotingDetector):
        return [
            (
                "Threshold",
                f"fewer than {detector.least_votes_} of {detector.n_votes} votes for "
                "the network's label",
            ),
            ("Noise of the votes", f"{figure(detector.sigma)} input units (sigma)"),
            (
                "Passes with probability",
                f"at most {figure(detector.level)}, where the ideal share of votes for "
                f"the label is below {figure(detector.limit_)}",
            ),
        ]
    if isinstance(detector, CurvatureThresholdDetector):
        return [
            (
                "Threshold",
                f"{figure(detector.threshold_)} per input unit, on the "
                f"{detector.statistic} of the average curvatures",
            ),
            ("Features", ", ".join(map(str, facts.guard.featurizer_.features))),
        ]
    return [("Threshold", "that of the detector, which is not of this package")]


def _of_learned(detector: LearnedDetector) -> list[tuple[str, str]]:
    linf, l2 = detector.shortest_
    return [
        ("Images learned from", _images_of(detector)),
        ("Threshold", f"{figure(detector.threshold_)} (log-odds of an attack)"),
        (
            "Smallest perturbations that fool the network",
            f"typically {figure(l2)} in L2 norm, or {figure(linf)} as the largest "
            "change of a value (input units)",
        ),
        ("Budget", f"{figure(detector.budget)} FE, for a clean image on average"),
    ]


def _images_of(detector: LearnedDetector) -> str:
    """Return what a detector learned from, as far as its file says."""
    if detector.n_learned_ is None or detector.n_adversarial_ is None:
        return "number not known, for the guard was fitted by an earlier version"
    return (
        f"{detector.n_learned_:,} clean images, and {detector.n_adversarial_:,} "
        "adversarial ones made of them"
    )
