"""Guard image classifiers by the curvature of their decision boundaries.

`CurvatureFeaturizer` measures the curvature of the boundaries around an image,
`CurvatureThresholdDetector` flags adversarial images and `CurvatureRelabeler`
recovers the label they had; `GuardedClassifier` is all three in one.
:mod:`curvdetect.geometry` holds the mathematics and states its notation and sign.
"""

from curvdetect.detector import CurvatureThresholdDetector
from curvdetect.featurizer import CurvatureFeaturizer
from curvdetect.guard import GuardedClassifier
from curvdetect.model import TorchModel
from curvdetect.relabeler import CurvatureRelabeler

__version__ = "0.1.0"

__all__ = [
    "CurvatureFeaturizer",
    "CurvatureRelabeler",
    "CurvatureThresholdDetector",
    "GuardedClassifier",
    "TorchModel",
]
