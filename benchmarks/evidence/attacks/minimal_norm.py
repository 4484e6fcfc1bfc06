"""Attacks that make the perturbation as small as they can.

CW (Carlini & Wagner, 2017) is torchattacks' (3.5.1). DeepFool (Moosavi-Dezfooli et
al., 2016), DDN (Rony et al., 2019), ALMA (Rony et al., 2021) and FMN (Pintor et al.,
2021) in L2 and L-infinity are adv-lib's (0.2.8). This package's own go 1.02 and 2 times
as far as the nearest boundary found.

torchattacks' DeepFool is ten times as slow and ends on the boundary to the last digit,
and foolbox's (3.3.4) FMN in L2 does not project.
"""

from __future__ import annotations

from functools import partial
from math import inf

import torchattacks
from adv_lib.attacks import alma, ddn, df, fmn
from torch import Tensor

from benchmarks.evidence.attacks._calling import Run, held
from benchmarks.evidence.attacks.base import Attack
from benchmarks.evidence.case import Case
from curvdetect import TorchModel
from curvdetect.attacks import MinimalNormAttack

__all__ = ["attacks"]

NEAREST = "minimal norm x {}"


def attacks(case: Case) -> list[Attack]:
    """Return the attacks; one learns from CW and this package's shortest."""
    module = case.model.as_module()
    runs: dict[str, Run] = {
        "CW": _cw(case.model),
        "DeepFool": partial(df, module, steps=50),
        "DDN": partial(ddn, module, steps=30, levels=None),
        "ALMA": partial(alma, module, num_steps=50, init_lr_distance=0.3),
        "FMN L2": partial(fmn, module, norm=2, steps=50),
        "FMN Linf": partial(fmn, module, norm=inf, steps=30),
    }
    nearest: dict[str, Run] = {
        NEAREST.format(factor): MinimalNormAttack(case.model, factor=factor)
        for factor in (1.02, 2)
    }
    return [
        Attack(
            name,
            "minimal norm",
            held(case.model, run),
            n_images=100 if name in nearest else None,
            learned_from=name in ("CW", NEAREST.format(1.02)),
        )
        for name, run in {**runs, **nearest}.items()
    ]


def _cw(model: TorchModel) -> Run:
    """Keep images inside the bounds, where CW's change of variables can move them."""
    attack = torchattacks.CW(model.as_module(), c=5, steps=50, lr=0.02)

    def attacked(images: Tensor, labels: Tensor) -> Tensor:
        return attack(images.clamp(1e-3, 1 - 1e-3), labels)

    return attacked
