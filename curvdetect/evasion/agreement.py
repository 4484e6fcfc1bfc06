"""Make the model wrong, and equally wrong, wherever a learned detector looks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from curvdetect._base.checks import check_count
from curvdetect.estimators.learned import LearnedDetector, learned_detector
from curvdetect.evasion._projected_ascent import (
    Norm,
    Objective,
    ProjectedAscent,
    Slope,
    wrong_margin,
)
from curvdetect.evasion.stand_in import StandIn, answers, neighbours_of

__all__ = ["AgreementAttack"]

#: How far below the threshold to aim, in log-odds, and what agreement counts beside it.
_BELOW, _AGREEMENT = 1.0, 0.3


class AgreementAttack(ProjectedAscent):
    """Make the model wrong, and equally wrong, wherever a learned detector looks.

    Climbs the mean, over the image, all neighbours of it that the detector asks the
    model about, and the companion, if it has one, of the logit of one wrong class minus
    the largest other, each up to the margin that the clean image had; less `evenness`
    times the mean of how far that margin falls from the image to the others; and less
    what a stand-in of the detector has above the threshold, if one is given. Gradients
    go through the move, the mirror, the blur and the random direction, which the
    attacker is assumed to know, and straight through the two levels, which have none.

    Parameters
    ----------
    detector : LearnedDetector, GuardedClassifier or CurvatureGuard
        Fitted, with a learned detector; its model is attacked.
    eps : float
        Budget, in input units.
    norm : {"Linf", "L2"}, default="L2"
        Norm of the budget.
    rank : int, default=1
        Which wrong class: that of the rank-th largest other logit of the clean image.
    evenness : float, default=0.5
        How much falling margins count. Which value is best depends on the image: of
        several, the shortest perturbation counts.
    stand_in : StandIn, optional
        A smooth network that was taught the detector's scores.
    steps : int, default=60
        Gradient steps; each costs 3 (1 + 7) forward passes an image.

    References
    ----------
    A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of
    security", ICML 2018 (straight-through gradients, expectation over transformations).

    Examples
    --------
    >>> import torch
    >>> from curvdetect import LearnedDetector
    >>> from curvdetect.evasion import AgreementAttack
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> detector = LearnedDetector(
    ...     load_lenet("fashion-mnist"), target_fpr=0.1, self_test=False, random_state=0
    ... ).fit(X[:90], y[:90])
    >>> attack = AgreementAttack(detector, eps=3.0, steps=20)
    >>> found = attack(torch.from_numpy(X[90:98]), torch.from_numpy(y[90:98]))
    >>> bool((detector.model_.predict(found) != y[90:98]).all())
    True
    """

    def __init__(
        self,
        detector: LearnedDetector,
        *,
        eps: float,
        norm: Norm = "L2",
        rank: int = 1,
        evenness: float = 0.5,
        stand_in: StandIn | None = None,
        steps: int = 60,
    ) -> None:
        learned = learned_detector(detector)
        super().__init__(learned.model_, eps=eps, norm=norm, steps=steps)
        check_count("rank", rank)
        if rank >= learned.n_classes_:
            raise ValueError(
                f"rank must be at most {learned.n_classes_ - 1}, the number of other "
                f"classes; got {rank}"
            )
        if not 0 <= evenness < math.inf:
            raise ValueError(f"evenness must be at least 0; got {evenness!r}")
        self.rank, self.evenness, self.stand_in = rank, evenness, stand_in
        self._evidence = learned._evidence()

    def _objective(self, images: Tensor, labels: Tensor) -> Objective:
        with torch.no_grad():
            clean = self.model.logits(images)
        others = clean.scatter(1, labels[:, None], -torch.inf)
        target = others.topk(self.rank, dim=1).indices[:, -1]
        sure = -wrong_margin(clean, labels).clamp(max=0)  # of the right label

        def objective(x: Tensor) -> Slope:
            known = answers(self._evidence, [x, *self._neighbours(x)])
            margins = -wrong_margin(known.flatten(0, 1), target.repeat(len(known)))
            margins = margins.reshape(len(known), -1)
            falls = (margins[0] - margins[1:]).clamp(min=0).mean(0)
            value = margins.minimum(sure).mean(0) - self.evenness * falls
            if self.stand_in is not None:
                above = self.stand_in.of_logits(known) - self.stand_in.threshold
                value = _AGREEMENT * value - (above + _BELOW).clamp(min=0)
            (way,) = torch.autograd.grad(value.sum(), x)
            margin = wrong_margin(known[0], labels)
            return Slope(margin.detach(), value.detach(), way)

        return objective

    def _neighbours(self, x: Tensor) -> list[Tensor]:
        return neighbours_of(self._evidence, x)
