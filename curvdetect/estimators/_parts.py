"""What a guard is made of, from what a user may say: one home for all who take it."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.base import clone
from torch import nn

from curvdetect._base.checks import check_choice
from curvdetect.estimators._companions import check_companion
from curvdetect.estimators._image_detector import ImageDetector
from curvdetect.estimators.detector import CurvatureThresholdDetector, check_target_fpr
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.estimators.state import module_of
from curvdetect.network import TorchModel
from curvdetect.signals import Companion

__all__ = ["DETECTORS", "Asked", "Parts"]

#: Detectors that have a name.
DETECTORS = ("learned", "threshold")
#: Of "threshold", where no rate is asked for.
_TARGET_FPR = 0.01


class Parts(NamedTuple):
    """What is to be fitted.

    Attributes
    ----------
    featurizer : CurvatureFeaturizer or None
        None where the detector looks at images itself.
    detector : estimator
        Of images or of features.
    """

    featurizer: CurvatureFeaturizer | None
    detector: Any


@dataclass(frozen=True)
class Asked:
    """What a user asked for, as in :class:`~curvdetect.GuardedClassifier`.

    Attributes
    ----------
    detector : {"learned", "threshold"}, estimator or None
        None: "learned"; with a `featurizer`, "threshold".
    featurizer : CurvatureFeaturizer or None
        For a detector of features.
    companion : Companion, TorchModel, torch.nn.Module or None
        For a learned detector.
    target_fpr : float or None
        Of a detector that has a name.
    random_state : int or None
        Of what is made here.
    """

    detector: Any = None
    featurizer: CurvatureFeaturizer | None = None
    companion: Companion | TorchModel | nn.Module | None = None
    target_fpr: float | None = None
    random_state: int | np.random.RandomState | None = None

    @property
    def kind(self) -> Literal["learned", "threshold", "given"]:
        """Whether it looks at images itself, at curvatures, or at any features."""
        if isinstance(self.detector, ImageDetector):
            return "learned"
        if self.detector is None:
            return "learned" if self.featurizer is None else "threshold"
        if not isinstance(self.detector, str):
            return "given"
        return "threshold" if self.detector == "threshold" else "learned"

    def check(self, model: Any) -> None:
        """Refuse what is not allowed, or does not go together.

        Parameters
        ----------
        model : TorchModel or torch.nn.Module
            The network.

        Raises
        ------
        TypeError
            If something is of another type than it must be.
        ValueError
            If a value is not allowed, or not beside another.
        """
        self._check_types()
        if isinstance(self.detector, str):
            check_choice("detector", self.detector, DETECTORS)
        check_target_fpr(self.target_fpr)
        self._check_together(model)

    def _check_types(self) -> None:
        if not isinstance(self.featurizer, CurvatureFeaturizer | None):
            raise TypeError(
                "featurizer must be a CurvatureFeaturizer or None; got "
                f"{type(self.featurizer).__name__}"
            )
        held = self.detector
        if not isinstance(held, str | None) and (
            isinstance(held, type) or not hasattr(held, "fit")
        ):
            raise TypeError(
                f"detector must be one of {DETECTORS}, an estimator with fit, or None; "
                f"got {held!r}"
            )
        check_companion(self.companion)
        seed = self.random_state
        if not isinstance(seed, Integral | np.random.RandomState | None):
            raise TypeError(f"random_state must be an integer or None; got {seed!r}")

    def _check_together(self, model: Any) -> None:
        if self.kind == "learned" and self.featurizer is not None:
            raise ValueError(
                "featurizer must be left out where the detector is learned, which "
                'measures by itself; give detector="threshold", or leave detector out; '
                f"got {self.featurizer!r}"
            )
        if self.kind != "learned" and self.companion is not None:
            raise ValueError(
                "companion must be left out where the detector is not learned: only "
                'that asks it; give detector="learned", or leave detector out; got '
                f"{self.detector!r}"
            )
        if None not in (self.companion, getattr(self.detector, "companion", None)):
            raise ValueError(
                "companion must be left out where detector has one; got both"
            )
        for part, name in (("detector", "target_fpr"), ("featurizer", "random_state")):
            held, value = getattr(self, part), getattr(self, name)
            if not (held is None or isinstance(held, str)) and value is not None:
                raise ValueError(
                    f"{name} must be left out where {part} is given, which has its "
                    f"own; got {name}={value!r} and {held!r}"
                )
        other = None if self.featurizer is None else self.featurizer.model
        if other is not None and module_of(other) is not module_of(model):
            raise ValueError(
                "featurizer must be for the guard's model, or have none; got another "
                "network. Leave it out: CurvatureFeaturizer(n_boundaries=3)"
            )

    def parts(self, model: Any, verbose: int = 0) -> Parts:
        """Return what is to be fitted: copies, for a network.

        Parameters
        ----------
        model : TorchModel or torch.nn.Module
            The network.
        verbose : int, default=0
            Of a learned detector that is made here.

        Returns
        -------
        Parts
            Not fitted.
        """
        if self.kind == "learned":
            return Parts(None, self._of_images(model, verbose))
        if self.featurizer is None:
            featurizer = CurvatureFeaturizer(model, random_state=self._seed)
        else:
            featurizer = clone(self.featurizer).set_params(model=model)
        # The detector knows no column names.
        featurizer.set_output(transform="default")
        if self.kind == "given":
            return Parts(featurizer, clone(self.detector))
        fpr = _TARGET_FPR if self.target_fpr is None else self.target_fpr
        return Parts(featurizer, CurvatureThresholdDetector(target_fpr=fpr))

    def _of_images(self, model: Any, verbose: int) -> ImageDetector:
        if isinstance(self.detector, ImageDetector):
            detector: ImageDetector = clone(self.detector).set_params(model=model)
            if self.companion is not None:
                detector.set_params(companion=self.companion)
            return detector
        return LearnedDetector(
            model,
            companion=self.companion,
            target_fpr=self.target_fpr,
            random_state=self._seed,
            verbose=verbose,
        )

    @property
    def _seed(self) -> int | np.random.RandomState:
        return 0 if self.random_state is None else self.random_state
