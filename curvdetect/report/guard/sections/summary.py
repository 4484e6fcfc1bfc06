"""The figures that a reader looks for first, each with where it comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

from curvdetect.estimators import SelfTest
from curvdetect.evasion import Evasion
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import between, figure, share
from curvdetect.report.guard.sections.cost import cost_of
from curvdetect.study.metrics import proportion

__all__ = ["TITLE", "build"]

TITLE = "In short"
#: Attacks of which less is flagged are named.
_MISSED = 0.5


class _Key(NamedTuple):
    """A figure at the top: what it is called, its value, and what it means."""

    name: str
    value: str
    said: str


def build(facts: Facts) -> dict[str, Any]:
    """Return a few figures, and the attacks that the guard misses."""
    keys = [_flagged(facts)]
    if facts.attacked is not None and len(facts.attacked.test):
        keys += _detection(facts.attacked.test)
    keys.append(
        _Key(
            "Cost of a clean image",
            f"{figure(cost_of(facts))} FE",
            "forward-equivalents: a forward pass of the network is one, a backward "
            "pass two",
        )
    )
    keys.append(_evasion(facts))
    tests = {
        "self-test of the calibration": facts.self_test,
        "images given": None if facts.attacked is None else facts.attacked.test,
    }
    missed = [
        (row.attack, where, row.detected)
        for where, test in tests.items()
        for row in test or ()
        if row.detected < _MISSED
    ]
    n_tried = sum(len(test) for test in tests.values() if test is not None)
    return {"keys": keys, "missed": missed, "tried": n_tried > 0}


def _flagged(facts: Facts) -> _Key:
    flagged = proportion(facts.found.flagged[facts.right])
    target = facts.target_fpr
    promised = "" if target is None else f"; made for at most {figure(target)}"
    which = (
        "images given"
        if facts.given.labels is None
        else "images given that the network gets right"
    )
    return _Key(
        "Clean images flagged",
        between(flagged),
        f"share of the {int(facts.right.sum()):,} {which}{promised}",
    )


def _detection(test: SelfTest) -> list[_Key]:
    worst = min(test, key=lambda row: row.auroc)
    least = min(test, key=lambda row: row.detected)
    return [
        _Key(
            "Adversarial from clean, AUROC",
            share(test.mean_auroc),
            f"mean over {len(test)} attacks that do not know the guard; the worst, "
            f"{worst.attack}: {share(worst.auroc)} (1 is perfect, 0.5 is chance)",
        ),
        _Key(
            "Least detected attack",
            between((least.detected, least.detected_low, least.detected_high)),
            f"share flagged after {least.attack}",
        ),
    ]


def _evasion(facts: Facts) -> _Key:
    if not facts.evasion:
        return _Key(
            "Against attackers who know the guard",
            "not measured",
            "expect that they get through, with larger perturbations; curvdetect evade "
            "measures how large",
        )
    cheapest = min(facts.evasion, key=lambda each: each.cost)
    if not cheapest.is_found:
        return _Key(
            "Against attackers who know the guard",
            "not found",
            f"half or more of the images never evaded{_how_far(cheapest)}; a better "
            "attack may",
        )
    return _Key(
        "Against attackers who know the guard",
        f"{figure(cheapest.cost)} times",
        f"as long a perturbation as fools the network alone, by {cheapest.attack}: an "
        "upper bound",
    )


def _how_far(search: Evasion) -> str:
    if search.largest_norm is None:
        return ""
    return f", in a search up to a norm of {figure(search.largest_norm)}"
