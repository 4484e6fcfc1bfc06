"""Attacks that see answers alone, no gradients.

Square (Andriushchenko et al., 2020) is torchattacks' (3.5.1) and sees logits;
HopSkipJump (Chen et al., 2020) is foolbox's (3.3.4) and sees decisions.
"""

from __future__ import annotations

import foolbox
import torch
import torchattacks
from torch import Tensor

from benchmarks.evidence.attacks._calling import Run, held, kept_where, seen_by_foolbox
from benchmarks.evidence.attacks.base import Attack
from benchmarks.evidence.case import Case
from curvdetect import TorchModel

__all__ = ["attacks", "beginnings"]

#: Of uniform noise, from which HopSkipJump may begin.
NOISE = 20


def attacks(case: Case) -> list[Attack]:
    """Return the attacks; one learns from Square."""
    budget = min(case.network.budgets)
    square = torchattacks.Square(
        case.model.as_module(), eps=budget / 255, n_queries=1000
    )
    return [
        Attack(
            f"Square {budget}/255", "black box", held(case.model, square), n_images=100
        ),
        Attack(
            "HopSkipJump",
            "black box",
            held(case.model, _hop_skip_jump(case.model)),
            n_images=50,
            learned_from=False,
        ),
    ]


def _hop_skip_jump(model: TorchModel) -> Run:
    attack = foolbox.attacks.HopSkipJumpAttack(
        steps=8, initial_gradient_eval_steps=50, max_gradient_eval_steps=100
    )

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        fools, begin = beginnings(model, images, labels)
        found = images.clone()
        if fools.any():
            found[fools], _, _ = attack(
                seen_by_foolbox(model),
                images[fools],
                labels[fools],
                starting_points=begin[fools],
                epsilons=None,
            )
        return kept_where(fools, found, images)

    return attacked


def beginnings(
    model: TorchModel, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return whether something fools, and the first of noise and images that does.

    foolbox's own choice, noise alone, ends with an error where the network says the
    same of all noise.
    """
    pool = torch.cat([torch.rand(NOISE, *images.shape[1:]).to(images), images])
    with torch.no_grad():
        predicted = model.logits(pool).argmax(dim=1)
    fool = predicted[None] != labels[:, None]
    return fool.any(dim=1), pool[fool.float().argmax(dim=1)]
