"""Adversarial sets for studies of detectors, and the attacks that make them.

Attacks that know only the network come from torchattacks, foolbox and ART. Ours are
the two that a study of boundaries needs beside them, the minimal perturbation and
noise of the same norm, and those that know the detector.
"""

from curvdetect.attacks._adaptive import (
    EvasionAttack,
    LogitMatchingAttack,
    MinimalEvasion,
    NeighbourhoodMarginAttack,
    minimal_evasion,
)
from curvdetect.attacks._curvature_score import CurvatureScore
from curvdetect.attacks._libraries import from_art, from_foolbox, pgd
from curvdetect.attacks._minimal_norm import MinimalNormAttack
from curvdetect.attacks._sets import (
    AdversarialSet,
    LabelledSet,
    make_adversarial_set,
    same_norm_noise,
)

__all__ = [
    "AdversarialSet",
    "CurvatureScore",
    "EvasionAttack",
    "LabelledSet",
    "LogitMatchingAttack",
    "MinimalEvasion",
    "MinimalNormAttack",
    "NeighbourhoodMarginAttack",
    "from_art",
    "from_foolbox",
    "make_adversarial_set",
    "minimal_evasion",
    "pgd",
    "same_norm_noise",
]
