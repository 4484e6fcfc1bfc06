"""A network and its guard as one module, for attacks of other packages."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from curvdetect.estimators.learned import LearnedDetector, learned_detector
from curvdetect.evasion.stand_in import StandIn, answers, neighbours_of

__all__ = ["JointModule"]


class JointModule(nn.Module):
    r"""A network and its guard as one module: an unflagged class, or "flagged".

    The logit of class j is the smallest of what must be positive for an image to be
    given the label j and not be flagged: its logit minus the largest other; the
    largest odds that the detector lets pass minus those which the companion gives
    against j; and the threshold minus a stand-in's score. A further class, the last,
    "flagged", has the logit 0. So a targeted attack, towards j, of any package evades
    the guard, as far as the stand-in is right.

    Parameters
    ----------
    detector : LearnedDetector, GuardedClassifier or CurvatureGuard
        Fitted, with a learned detector.
    stand_in : StandIn, optional
        Of the detector.
    threshold : float, optional
        Of the detector's score; its own by default.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import LearnedDetector
    >>> from curvdetect.evasion import JointModule
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> detector = LearnedDetector(
    ...     load_lenet("fashion-mnist"), target_fpr=0.1, self_test=False, random_state=0
    ... ).fit(X[:90], y[:90])
    >>> JointModule(detector)(torch.from_numpy(X[90:93])).shape
    torch.Size([3, 11])
    """

    def __init__(
        self,
        detector: LearnedDetector,
        *,
        stand_in: StandIn | None = None,
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        learned = learned_detector(detector)
        cascade = learned._cascade()
        self.stand_in = stand_in
        self.threshold = learned.threshold_ if threshold is None else threshold
        self._evidence = cascade.evidence
        self._odds = cascade.odds_at(self.threshold)
        self.eval()

    def conditions(self, x: Tensor) -> Tensor:
        """Return what must be positive for each class.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images.

        Returns
        -------
        Tensor of shape (n, m, n_classes)
            The margin; with a companion, what odds are left; with a stand-in, what is
            left below the threshold.
        """
        with self._evidence.evaluating():
            known = answers(self._evidence, [x, *neighbours_of(self._evidence, x)])
        first = known[0].topk(2, dim=1)
        largest, second = first.values.split(1, dim=1)
        is_first = torch.arange(known.shape[2], device=x.device) == first.indices[:, :1]
        found = [known[0] - torch.where(is_first, second, largest)]
        if math.isfinite(self._odds):
            log_q = known[-1]
            # log(1 - q), but for rounding where q is 1.
            others = torch.log(-torch.expm1(log_q.clamp(max=-1e-7)))
            found.append(self._odds - (others - log_q))
        if self.stand_in is not None:
            left = self.threshold - self.stand_in.of_logits(known)
            found.append(left[:, None].expand_as(found[0]))
        return torch.stack(found, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the unflagged classes, and of "flagged".

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images.

        Returns
        -------
        Tensor of shape (n, n_classes + 1)
            At most one of the first is positive; the last is 0.
        """
        smallest = self.conditions(x).amin(dim=1)
        return torch.cat([smallest, smallest.new_zeros(len(x), 1)], dim=1)
