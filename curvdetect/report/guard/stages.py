"""What each stage of a learned detector adds: detection against cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect.estimators import LearnedDetector
from curvdetect.estimators._cascade import Decided, decided
from curvdetect.estimators._evidence import N_STAGES
from curvdetect.study.metrics import Estimate, auroc, tpr_at_fpr

__all__ = ["Stage", "Staged"]


class Stage(NamedTuple):
    """A detector that looks no further than at one of its stages.

    Attributes
    ----------
    cost : float
        Of a clean image on average, in forward-equivalents.
    most : float
        Of an image that goes through all these stages.
    auroc : Estimate
        Of all adversarial images together against the clean ones.
    detected : Estimate
        Share of the adversarial images flagged where at most the share `target_fpr_` of
        these clean images is.
    clean_here, attacked_here : float
        Share of the clean, and of the adversarial images that the whole detector
        decides about in this stage.
    """

    cost: float
    most: float
    auroc: Estimate
    detected: Estimate
    clean_here: float
    attacked_here: float


@dataclass
class Staged:
    """Collects what the stages make of clean images, and of one attack after another.

    Attributes
    ----------
    detector : LearnedDetector
        Fitted.
    clean : ndarray of shape (n, *input_shape)
        Clean images.
    """

    detector: LearnedDetector
    clean: npt.NDArray[Any]
    _found: list[list[Decided]] = field(default_factory=list)

    def __post_init__(self) -> None:
        whole = self.detector._cascade()
        self._cascades = [whole.up_to(stage) for stage in range(N_STAGES)]
        self._of_clean = self._decided(torch.from_numpy(self.clean))

    def add(self, adversarial: Tensor) -> None:
        """Let every stage judge the images of an attack."""
        self._found.append(self._decided(adversarial))

    def _decided(self, images: Tensor) -> list[Decided]:
        checked = self.detector._checked(images.numpy())
        return [decided(cascade, checked, 0) for cascade in self._cascades]

    def stages(self) -> list[Stage]:
        """Return the figures; none, if there was no attack.

        Returns
        -------
        list of Stage
            In their order.
        """
        if not self._found:
            return []
        costs = self._cascades[-1].evidence.costs()
        up_to = np.cumsum(costs)
        attacked_at = torch.cat([of[-1].stage for of in self._found]).numpy()
        clean_at = self._of_clean[-1].stage.numpy()
        found = []
        for stage in range(N_STAGES):
            clean = self._of_clean[stage]
            scores = torch.cat([of[stage].score for of in self._found]).numpy()
            of_clean = clean.score.numpy()
            found.append(
                Stage(
                    cost=float(up_to[clean.stage.numpy()].mean()),
                    most=float(up_to[stage]),
                    auroc=auroc(of_clean, scores),
                    detected=tpr_at_fpr(of_clean, scores, self.detector.target_fpr_),
                    clean_here=float(np.mean(clean_at == stage)),
                    attacked_here=float(np.mean(attacked_at == stage)),
                )
            )
        return found
