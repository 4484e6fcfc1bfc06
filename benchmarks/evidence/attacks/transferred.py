"""Attacks on another network for the same data, tried on this one.

PGD and MI-FGSM (Dong et al., 2018) of torchattacks (3.5.1), at the network's largest
budget alone: at 2/255 they fool hardly any image of the CIFAR-10 networks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchattacks
from torch import Tensor

from benchmarks.evidence.attacks._calling import Run, held
from benchmarks.evidence.attacks.base import Attack
from benchmarks.evidence.case import Case
from curvdetect import TorchModel
from curvdetect.attacks import pgd

__all__ = ["attacks"]


def attacks(case: Case) -> list[Attack]:
    """Return the attacks, from which nobody learns."""
    budget = max(case.network.budgets)
    return [
        Attack(
            f"{name} {budget}/255 of another network",
            "transferred",
            _from_another(case, make, budget / 255),
            learned_from=False,
        )
        for name, make in {"PGD": _pgd, "MI-FGSM": _mi_fgsm}.items()
    ]


def _pgd(model: TorchModel, eps: float) -> Run:
    return pgd(model, eps=eps, steps=20)


def _mi_fgsm(model: TorchModel, eps: float) -> Run:
    return torchattacks.MIFGSM(model.as_module(), eps=eps, alpha=eps / 8, steps=10)


def _from_another(
    case: Case, make: Callable[[TorchModel, float], Run], eps: float
) -> Run:
    """Load the other network when it is first needed, since its file may be missing."""

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # a new module draws its first weights
            other = case.other
        return held(other, make(other, eps))(images, labels)

    return attacked
