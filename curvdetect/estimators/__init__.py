"""scikit-learn estimators: measure, flag, relabel, and all three in one.

`CurvatureGuard` is the last as a torch module, for serving.
"""

from curvdetect.estimators._image_detector import Examined
from curvdetect.estimators.assessing import assess_guard
from curvdetect.estimators.detector import CurvatureThresholdDetector
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.guard import Assessment, GuardedClassifier
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.estimators.module import CurvatureGuard, Guarded
from curvdetect.estimators.monitor import FlagCount, GuardMonitor, MonitorState
from curvdetect.estimators.relabeler import CurvatureRelabeler
from curvdetect.estimators.self_test import SelfTest, Tried
from curvdetect.estimators.voting import Certified, VotingDetector

__all__ = [
    "Assessment",
    "Certified",
    "CurvatureFeaturizer",
    "CurvatureGuard",
    "CurvatureRelabeler",
    "CurvatureThresholdDetector",
    "Examined",
    "FlagCount",
    "GuardMonitor",
    "Guarded",
    "GuardedClassifier",
    "LearnedDetector",
    "MonitorState",
    "SelfTest",
    "Tried",
    "VotingDetector",
    "assess_guard",
]
