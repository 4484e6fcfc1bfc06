"""Guard torch image classifiers against adversarial images.

`GuardedClassifier` puts a guard around a network, which `TorchModel` wraps: it flags
adversarial images and recovers the labels that they had. `CurvatureGuard` is the same
as a torch module, for serving; `GuardMonitor` watches what is served.

What flags images is one of three detectors. `LearnedDetector`, the default, learns from
attacks that it makes on the network. `VotingDetector` gives certificates.
`CurvatureThresholdDetector` sets a threshold on the curvature of the decision
boundaries, which `CurvatureFeaturizer` measures and from which `CurvatureRelabeler`
recovers labels. :mod:`curvdetect.geometry` defines curvature and its sign.
"""

from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

__all__ = [
    "Assessment",
    "CurvatureFeaturizer",
    "CurvatureGuard",
    "CurvatureRelabeler",
    "CurvatureThresholdDetector",
    "FlagCount",
    "GuardMonitor",
    "Guarded",
    "GuardedClassifier",
    "LearnedDetector",
    "MonitorState",
    "TorchModel",
    "VotingDetector",
    "assess_guard",
]

if TYPE_CHECKING:
    from curvdetect.estimators import (
        Assessment,
        CurvatureFeaturizer,
        CurvatureGuard,
        CurvatureRelabeler,
        CurvatureThresholdDetector,
        FlagCount,
        Guarded,
        GuardedClassifier,
        GuardMonitor,
        LearnedDetector,
        MonitorState,
        VotingDetector,
        assess_guard,
    )
    from curvdetect.network import TorchModel
else:
    _FOLDERS = (
        "attacks",
        "estimators",
        "evasion",
        "geometry",
        "network",
        "plotting",
        "signals",
        "storage",
        "study",
    )

    def __getattr__(name):
        """Import a name when it is first asked for: the command line's help is quick.

        Torch and scikit-learn, which all of them need, take seconds to import.
        """
        import importlib

        if name in _FOLDERS:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        folder = "network" if name == "TorchModel" else "estimators"
        value = getattr(importlib.import_module(f"{__name__}.{folder}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__, *_FOLDERS})
