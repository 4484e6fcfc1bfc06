"""Attacks on a network alone, and the adversarial sets that they make.

Ours are the two that a study of boundaries needs, the minimal perturbation and noise of
the same norm; the others come from torchattacks, foolbox and ART. Attacks that know the
detector are in :mod:`curvdetect.evasion`.
"""

from curvdetect.attacks._libraries import from_art, from_foolbox, pgd
from curvdetect.attacks.adversarial_set import (
    AdversarialSet,
    LabelledSet,
    make_adversarial_set,
    same_norm_noise,
)
from curvdetect.attacks.minimal_norm import MinimalNormAttack

__all__ = [
    "AdversarialSet",
    "LabelledSet",
    "MinimalNormAttack",
    "from_art",
    "from_foolbox",
    "make_adversarial_set",
    "pgd",
    "same_norm_noise",
]
