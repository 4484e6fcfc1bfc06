"""Images to look at: the most and the least suspicious, and what attacks change."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from curvdetect.report.guard.attacked import Example
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import figure
from curvdetect.report.guard.pictures import (
    LARGEST,
    Picture,
    enlarged,
    is_picture,
    picture,
)

__all__ = ["TITLE", "build"]

TITLE = "Images"
#: Of the most, and of the least suspicious.
_N_EACH = 6


class _Shown(NamedTuple):
    """An image that was given, and what is said of it."""

    picture: Picture
    name: str
    label: str
    true_label: str | None
    recovered: str | None
    score: float
    p_value: float | None
    flagged: bool


class _Attack(NamedTuple):
    """An image, its perturbed version, and the difference, enlarged."""

    attack: str
    before: Picture
    after: Picture
    change: Picture
    factor: float
    norm: float
    largest: float
    label: str
    label_after: str
    recovered: str
    score: float
    score_after: float


def build(facts: Facts) -> dict[str, Any]:
    """Return pictures; none of inputs that cannot be shown."""
    shape = tuple(facts.given.X.shape[1:])
    if not is_picture(shape):
        return {"shown": False, "shape": shape}
    order = np.argsort(-facts.found.score, kind="stable")
    n = min(_N_EACH, len(order) // 2)
    attacked = facts.attacked
    examples = [] if attacked is None else attacked.examples
    return {
        "shown": True,
        "most": [_given(facts, row) for row in order[:n]],
        "least": [_given(facts, row) for row in order[::-1][:n]],
        "examples": [_attack(facts, example) for example in examples],
        "cut": max(shape[1:]) > LARGEST,
        "side": LARGEST,
    }


def _given(facts: Facts, row: int) -> _Shown:
    found, labels = facts.found, facts.given.labels
    label = facts.name_of(int(found.model_label[row]))
    flagged = bool(found.flagged[row])
    verdict = "flagged" if flagged else "not flagged"
    name = facts.given.names[row]
    return _Shown(
        picture=picture(
            facts.given.X[row], f"Image {name}: the network says {label}; {verdict}"
        ),
        name=name,
        label=label,
        true_label=None if labels is None else facts.name_of(int(labels[row])),
        recovered=facts.name_of(int(found.recovered_label[row])) if flagged else None,
        score=float(found.score[row]),
        p_value=None if facts.p_values is None else float(facts.p_values[row]),
        flagged=flagged,
    )


def _attack(facts: Facts, example: Example) -> _Attack:
    change = example.after - example.before
    shown, factor = enlarged(change)
    label, after = facts.name_of(example.label), facts.name_of(example.label_after)
    return _Attack(
        attack=example.attack,
        before=picture(example.before, f"Before the attack: {label}"),
        after=picture(
            example.after, f"After {example.attack}: the network says {after}"
        ),
        change=picture(
            shown, f"What {example.attack} changed, {figure(factor)} times enlarged"
        ),
        factor=factor,
        norm=float(np.linalg.norm(change)),
        largest=float(np.abs(change).max()),
        label=label,
        label_after=after,
        recovered=facts.name_of(example.recovered),
        score=example.score,
        score_after=example.score_after,
    )
