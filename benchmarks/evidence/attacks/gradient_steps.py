"""Attacks of torchattacks (3.5.1) that climb a loss within a budget.

At every budget of the network: FGSM (Goodfellow et al., 2015), PGD (Madry et al., 2018)
and APGD (Croce & Hein, 2020), which climbs the cross-entropy, the ratio of differences
of logits, or the latter towards every other class in turn. At the smallest budget also
PGD in L2, by half of the length of the L-infinity ball's diagonals. All but FGSM take
20 steps.
"""

from __future__ import annotations

import math
from functools import partial

import torchattacks

from benchmarks.evidence.attacks._calling import held
from benchmarks.evidence.attacks.base import Attack
from benchmarks.evidence.case import Case
from curvdetect.attacks import pgd

__all__ = ["attacks"]

STEPS = 20


def attacks(case: Case) -> list[Attack]:
    """Return the attacks at all budgets; one learns from FGSM and PGD."""
    found = [each for b in case.network.budgets for each in _at(case, b)]
    return [*found, _l2(case)]


def _at(case: Case, budget: int) -> list[Attack]:
    model, eps = case.model, budget / 255
    module = model.as_module()
    apgd = partial(torchattacks.APGD, module, eps=eps, steps=STEPS)
    runs = {
        "FGSM": torchattacks.FGSM(module, eps=eps),
        "PGD": pgd(model, eps=eps, steps=STEPS),
        "APGD-CE": apgd(loss="ce"),
        "APGD-DLR": apgd(loss="dlr"),
        "APGD targeted": torchattacks.APGDT(
            module, eps=eps, steps=STEPS, n_classes=model.n_classes
        ),
    }
    return [
        Attack(
            f"{name} {budget}/255",
            "gradient steps",
            held(model, run),
            learned_from=name in ("FGSM", "PGD"),
        )
        for name, run in runs.items()
    ]


def _l2(case: Case) -> Attack:
    budget = min(case.network.budgets) / 255 * math.sqrt(case.test.X[0].size) / 2
    run = torchattacks.PGDL2(
        case.model.as_module(), eps=budget, alpha=budget / 8, steps=STEPS
    )
    return Attack(
        f"L2 PGD {budget:.2f}",
        "gradient steps",
        held(case.model, run),
        learned_from=False,
    )
