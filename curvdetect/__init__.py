"""Guard image classifiers by the curvature of their decision boundaries.

`CurvatureFeaturizer` measures the curvature of the boundaries around an image,
`CurvatureThresholdDetector` flags adversarial images and `CurvatureRelabeler`
recovers the label they had; `GuardedClassifier` is all three in one, and
`CurvatureGuard` that as a torch module, for serving.
:mod:`curvdetect.geometry` holds the mathematics and states its notation and sign.
"""

from curvdetect.estimators import (
    Assessment,
    CurvatureFeaturizer,
    CurvatureGuard,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    Guarded,
    GuardedClassifier,
)
from curvdetect.network import TorchModel

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
