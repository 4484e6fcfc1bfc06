"""Train networks whose loss is less curved, and adversarially, to compare with.

:func:`cure_penalty` drops into any training loop; :func:`train` is a small one, with
checkpoints, for :class:`CrossEntropy`, :class:`CURE`, :class:`AdversarialTraining`,
:class:`GaussianNoise` or a loss of one's own. :func:`train_companion` trains, with one
of them, the second network that a guard asks beside the first.
"""

from curvdetect.study.training.adversarial import AdversarialTraining
from curvdetect.study.training.companion import TrainedCompanion, train_companion
from curvdetect.study.training.cross_entropy import CrossEntropy
from curvdetect.study.training.cure import CURE, cure_penalty
from curvdetect.study.training.gaussian_noise import GaussianNoise
from curvdetect.study.training.loop import train

__all__ = [
    "CURE",
    "AdversarialTraining",
    "CrossEntropy",
    "GaussianNoise",
    "TrainedCompanion",
    "cure_penalty",
    "train",
    "train_companion",
]
