"""Attacks that know the detector: misclassified, and not flagged.

All but the search for the smallest, and the measurement of what a guard costs
attackers, have torchattacks' calling convention, ``attack(images, labels) -> images``.
"""

from curvdetect.evasion.agreement import AgreementAttack
from curvdetect.evasion.cost import Evasion, MeasuredEvasion
from curvdetect.evasion.joint import JointAttack
from curvdetect.evasion.joint_module import JointModule
from curvdetect.evasion.logit_matching import LogitMatchingAttack
from curvdetect.evasion.measure import measure_evasion
from curvdetect.evasion.minimal_evasion import MinimalEvasion, find_minimal_evasion
from curvdetect.evasion.neighbourhood_margin import NeighbourhoodMarginAttack
from curvdetect.evasion.orthogonal import EvasionAttack
from curvdetect.evasion.signal_score import SignalScore
from curvdetect.evasion.stand_in import StandIn

__all__ = [
    "AgreementAttack",
    "Evasion",
    "EvasionAttack",
    "JointAttack",
    "JointModule",
    "LogitMatchingAttack",
    "MeasuredEvasion",
    "MinimalEvasion",
    "NeighbourhoodMarginAttack",
    "SignalScore",
    "StandIn",
    "find_minimal_evasion",
    "measure_evasion",
]
