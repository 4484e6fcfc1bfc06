"""The attacks of the benchmark: a family a file, which `attacks(case)` lists."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.evidence.attacks.base import KINDS, Attack
from benchmarks.evidence.case import Case

__all__ = ["KINDS", "Attack", "attacks_on"]


def attacks_on(case: Case) -> list[Attack]:
    """Return the attacks on a network, at its budgets, by kind."""
    found: list[Attack] = []
    for module in iter_modules(__path__):
        if module.name != "base" and module.name[0] != "_":
            found += import_module(f"{__name__}.{module.name}").attacks(case)
    return sorted(found, key=lambda attack: KINDS.index(attack.kind))
