"""Attacks of other hands, at the budgets of a network."""

from __future__ import annotations

from collections.abc import Callable

import torchattacks

from benchmarks.common.networks import NETWORKS
from curvdetect import TorchModel
from curvdetect.attacks import MinimalNormAttack, pgd

__all__ = ["attacks"]


def attacks(model: TorchModel, network: str) -> dict[str, Callable]:
    """Return every attack, by its name with its budget."""
    module = model.as_module()
    found: dict[str, Callable] = {}
    budgets = NETWORKS[network].budgets
    for budget in budgets:
        eps = budget / 255
        found[f"FGSM {budget}/255"] = torchattacks.FGSM(module, eps=eps)
        found[f"PGD {budget}/255"] = pgd(model, eps=eps)
        found[f"APGD {budget}/255"] = torchattacks.APGD(module, eps=eps, steps=20)
    found["CW"] = _within(torchattacks.CW(module, c=5, steps=100, lr=0.01))
    found["DeepFool"] = torchattacks.DeepFool(module)
    for factor in (1.02, 1.5, 2):
        found[f"minimal norm x {factor}"] = MinimalNormAttack(model, factor=factor)
    square = min(budgets)
    found[f"Square {square}/255"] = torchattacks.Square(
        module, eps=square / 255, n_queries=1000
    )
    return found


def _within(attack: Callable) -> Callable:
    """Keep images inside the bounds, where CW's change of variables can move them."""
    return lambda images, labels: attack(images.clamp(1e-3, 1 - 1e-3), labels)
