"""Attacks that know the detector: misclassified, and not flagged.

All but the search for the smallest have torchattacks' calling convention,
``attack(images, labels) -> images``.
"""

from curvdetect.evasion._adaptive import (
    EvasionAttack,
    LogitMatchingAttack,
    MinimalEvasion,
    NeighbourhoodMarginAttack,
    minimal_evasion,
)
from curvdetect.evasion.curvature_score import CurvatureScore

__all__ = [
    "CurvatureScore",
    "EvasionAttack",
    "LogitMatchingAttack",
    "MinimalEvasion",
    "NeighbourhoodMarginAttack",
    "minimal_evasion",
]
