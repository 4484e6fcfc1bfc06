"""Train networks whose loss is less curved, and adversarially, to compare with.

:func:`cure_penalty` drops into any training loop; :func:`train` is a small one, with
checkpoints, for :class:`CrossEntropy`, :class:`CURE`, :class:`AdversarialTraining` or a
loss of one's own.
"""

from curvdetect.study.training.adversarial import AdversarialTraining
from curvdetect.study.training.cross_entropy import CrossEntropy
from curvdetect.study.training.cure import CURE, cure_penalty
from curvdetect.study.training.loop import train

__all__ = ["CURE", "AdversarialTraining", "CrossEntropy", "cure_penalty", "train"]
