"""An evasion detector of the Adversarial Robustness Toolbox (extra "art")."""

from curvdetect._base.extras import require

require("art", extra="art")
from curvdetect.integrations.art._detector import CurvatureEvasionDetector  # noqa: E402
from curvdetect.integrations.art._model import model_from_art  # noqa: E402

__all__ = ["CurvatureEvasionDetector", "model_from_art"]
