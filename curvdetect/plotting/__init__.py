"""Pictures of curvature, in the style of scikit-learn's displays.

A display stores arrays and draws them when asked. ROC and DET curves are
scikit-learn's own: ``sklearn.metrics.RocCurveDisplay``.
"""

from curvdetect.plotting._average_curvature import AverageCurvatureDisplay
from curvdetect.plotting._axes import ADVERSARIAL, CLEAN
from curvdetect.plotting._boundary_section import BoundarySectionDisplay
from curvdetect.plotting._certificate import CertificateDisplay
from curvdetect.plotting._curvature_profile import CurvatureProfileDisplay
from curvdetect.plotting._monitor import MonitorDisplay
from curvdetect.plotting._profile_comparison import ProfileComparisonDisplay
from curvdetect.plotting._region_path import RegionPathDisplay
from curvdetect.plotting._relabel_rank import RelabelRankDisplay
from curvdetect.plotting._robustness import FoolingRateDisplay, RobustnessDisplay
from curvdetect.plotting._self_test import SelfTestDisplay

__all__ = [
    "ADVERSARIAL",
    "CLEAN",
    "AverageCurvatureDisplay",
    "BoundarySectionDisplay",
    "CertificateDisplay",
    "CurvatureProfileDisplay",
    "FoolingRateDisplay",
    "MonitorDisplay",
    "ProfileComparisonDisplay",
    "RegionPathDisplay",
    "RelabelRankDisplay",
    "RobustnessDisplay",
    "SelfTestDisplay",
]
