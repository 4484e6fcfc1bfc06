"""Images that are turned and shifted, the first of random ways that fools.

Engstrom et al., "Exploring the landscape of spatial robustness", 2019, by foolbox
(3.3.4): by at most 30 degrees and 3 pixels, black where nothing is known.
"""

from __future__ import annotations

import warnings

import foolbox
from torch import Tensor

from benchmarks.evidence.attacks._calling import Run, held
from benchmarks.evidence.attacks.base import Attack
from benchmarks.evidence.case import Case
from curvdetect import TorchModel
from curvdetect.attacks import from_foolbox

__all__ = ["attacks"]


def attacks(case: Case) -> list[Attack]:
    """Return the attacks; one learns from images that are turned and shifted."""
    both, turned = _moved(case.model, pixels=3), _moved(case.model, pixels=0)
    return [
        Attack("turned and shifted", "moved", held(case.model, both)),
        Attack("turned", "moved", held(case.model, turned), learned_from=False),
    ]


def _moved(model: TorchModel, *, pixels: float) -> Run:
    attack = from_foolbox(
        model,
        foolbox.attacks.SpatialAttack(
            max_rotation=30,
            max_translation=pixels,
            grid_search=False,  # a grid begins with the largest moves
            random_steps=30,
        ),
    )

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        with warnings.catch_warnings():
            # foolbox calls torch.meshgrid without saying which indexing it wants
            warnings.filterwarnings("ignore", "torch.meshgrid")
            return attack(images, labels)

    return attacked
