"""Attacks that change few pixels, or a square of them, by as much as it takes.

EAD (Chen et al., 2018) with its L1 rule is foolbox's (3.3.4); sigma-zero (Cinà et al.,
2025), which minimises the number of values that change, is adv-lib's (0.2.8). The patch
is a square at a random place, a quarter as wide as the image, in which ART's (1.20) PGD
may do anything: torchattacks, foolbox and adv-lib have no patch, and ART's own patches
are one for all images, or for detectors of objects.
"""

from __future__ import annotations

from functools import partial

import foolbox
import torch
from adv_lib.attacks import sigma_zero
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from benchmarks.evidence.attacks._calling import Run, held, kept_where
from benchmarks.evidence.attacks.base import Attack
from benchmarks.evidence.case import Case
from curvdetect import TorchModel
from curvdetect.attacks import from_foolbox

__all__ = ["attacks"]


def attacks(case: Case) -> list[Attack]:
    """Return the attacks; one learns from EAD and the patch."""
    runs: dict[str, Run] = {
        "EAD": _ead(case.model),
        "patch": _patch(case.model),
        "sigma-zero": partial(sigma_zero, case.model.as_module(), num_steps=30),
    }
    return [
        Attack(
            name,
            "few pixels",
            held(case.model, run),
            learned_from=name != "sigma-zero",
        )
        for name, run in runs.items()
    ]


def _ead(model: TorchModel) -> Run:
    """Put images back of which foolbox, having found nothing, makes black ones."""
    attack = from_foolbox(
        model,
        foolbox.attacks.EADAttack(
            binary_search_steps=3,
            steps=30,
            initial_const=1,
            initial_stepsize=0.05,
            decision_rule="L1",
        ),
    )

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        found = attack(images, labels)
        return kept_where(found.flatten(1).any(dim=1), found, images)

    return attacked


def _patch(model: TorchModel) -> Run:
    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        classifier = PyTorchClassifier(
            model.as_module(),
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=model.n_classes,
            clip_values=(0.0, 1.0),
            device_type=images.device.type,
        )
        pgd = ProjectedGradientDescent(
            classifier,
            eps=1.0,
            eps_step=0.1,
            max_iter=20,
            batch_size=len(images),
            verbose=False,
        )
        found = pgd.generate(
            images.cpu().numpy(),
            labels.cpu().numpy(),
            mask=squares(images).cpu().numpy(),
        )
        return torch.from_numpy(found)

    return attacked


def squares(images: Tensor) -> Tensor:
    """Return 1 within a square at a random place of each image, 0 elsewhere."""
    height, width = images.shape[-2:]
    side = min(height, width) // 4
    rows, columns = torch.arange(height), torch.arange(width)
    top = torch.randint(height - side + 1, (len(images), 1))
    left = torch.randint(width - side + 1, (len(images), 1))
    inside_rows = (rows >= top) & (rows < top + side)
    inside_columns = (columns >= left) & (columns < left + side)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return inside.expand(images.shape).to(images)
