"""Guard image classifiers by the curvature of their decision boundaries.

`CurvatureFeaturizer` measures the curvature of the boundaries around an image,
`CurvatureThresholdDetector` flags adversarial images and `CurvatureRelabeler`
recovers the label they had; `GuardedClassifier` is all three in one, and
`CurvatureGuard` that as a torch module, for serving.
:mod:`curvdetect.geometry` holds the mathematics and states its notation and sign.
"""

from curvdetect.detector import CurvatureThresholdDetector
from curvdetect.featurizer import CurvatureFeaturizer
from curvdetect.guard import Assessment, GuardedClassifier
from curvdetect.model import TorchModel
from curvdetect.relabeler import CurvatureRelabeler
from curvdetect.serving import CurvatureGuard, Guarded

__version__ = "0.1.0"

__all__ = [
    "Assessment",
    "CurvatureFeaturizer",
    "CurvatureGuard",
    "CurvatureRelabeler",
    "CurvatureThresholdDetector",
    "Guarded",
    "GuardedClassifier",
    "TorchModel",
]
