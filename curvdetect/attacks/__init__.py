"""Attacks on a network alone, and the adversarial sets that they make.

Ours are what a study of boundaries and a guard that learns need: the minimal
perturbation, steps along the gradient, and noise of the same norm; the others come from
torchattacks, foolbox and ART. Attacks that know the
detector are in :mod:`curvdetect.evasion`.
"""

from curvdetect.attacks.adversarial_set import AdversarialSet, make_adversarial_set
from curvdetect.attacks.art import from_art
from curvdetect.attacks.convention import Attack
from curvdetect.attacks.curriculum import KINDS, Lesson, curriculum, shortest_budgets
from curvdetect.attacks.foolbox import from_foolbox
from curvdetect.attacks.gradient_steps import GradientStepsAttack
from curvdetect.attacks.labelled_set import LabelledSet
from curvdetect.attacks.minimal_norm import MinimalNormAttack
from curvdetect.attacks.noise import same_norm_noise
from curvdetect.attacks.pgd import pgd

__all__ = [
    "KINDS",
    "AdversarialSet",
    "Attack",
    "GradientStepsAttack",
    "LabelledSet",
    "Lesson",
    "MinimalNormAttack",
    "curriculum",
    "from_art",
    "from_foolbox",
    "make_adversarial_set",
    "pgd",
    "same_norm_noise",
    "shortest_budgets",
]
