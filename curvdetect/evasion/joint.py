"""The shortest way to where the model is wrong and a learned detector says nothing."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from curvdetect._base.checks import check_count
from curvdetect._base.rows import per_row
from curvdetect.estimators.learned import LearnedDetector, learned_detector
from curvdetect.evasion.joint_module import JointModule
from curvdetect.evasion.stand_in import StandIn
from curvdetect.geometry import find_joint_perturbation

__all__ = ["JointAttack"]


class JointAttack:
    """Look for the shortest change that makes the model wrong, and is not flagged.

    For some wrong classes, a search by
    :func:`~curvdetect.geometry.find_joint_perturbation` under the conditions of
    :class:`JointModule`: the logit of that class is the largest, the companion gives no
    larger odds against it than the detector lets pass, and a stand-in of the detector
    is below the threshold. What counts at each step is the detector itself. The
    shortest over all classes is returned.

    Parameters
    ----------
    detector : LearnedDetector, GuardedClassifier or CurvatureGuard
        Fitted, with a learned detector.
    radius : float, optional
        Where to begin; by default the typical L2 norm of minimal perturbations.
    stand_in : StandIn, optional
        Of the detector. Without it, and without a companion, nothing leads past it.
    threshold : float, optional
        Of the detector's score; its own by default.
    n_targets : int, default=3
        How many wrong classes, those of the largest logits first.
    starts : Tensor of shape (m, *input_shape), optional
        Images of other classes that are not flagged: from the nearest of another class
        a further search starts.
    n_steps : int, default=150
        Steps a search; each costs 3 (1 + 7) forward passes an image and those of the
        companion, and a decision.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import LearnedDetector
    >>> from curvdetect.evasion import JointAttack, StandIn
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> detector = LearnedDetector(
    ...     load_lenet("fashion-mnist"), target_fpr=0.1, self_test=False, random_state=0
    ... ).fit(X[:90], y[:90])
    >>> stand_in = StandIn(detector, torch.from_numpy(X[90:150]), steps=200)
    >>> attack = JointAttack(detector, stand_in=stand_in, n_targets=1, n_steps=60)
    >>> x, label = torch.from_numpy(X[150:154]), torch.from_numpy(y[150:154])
    >>> found = attack(x, label)
    >>> found.shape
    torch.Size([4, 1, 28, 28])
    """

    def __init__(
        self,
        detector: LearnedDetector,
        *,
        radius: float | None = None,
        stand_in: StandIn | None = None,
        threshold: float | None = None,
        n_targets: int = 3,
        starts: Tensor | None = None,
        n_steps: int = 150,
    ) -> None:
        learned = learned_detector(detector)
        check_count("n_targets", n_targets)
        check_count("n_steps", n_steps)
        self.model, self.starts, self.n_steps = learned.model_, starts, n_steps
        self.radius = learned.shortest_[1] if radius is None else radius
        self.joint = JointModule(detector, stand_in=stand_in, threshold=threshold)
        self.n_targets = min(n_targets, learned.n_classes_ - 1)
        self._cascade = learned._cascade()

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Perturb images.

        Parameters
        ----------
        images : Tensor of shape (n, *input_shape)
            Within the model's bounds.
        labels : Tensor of shape (n,)
            Their labels.

        Returns
        -------
        Tensor of shape (n, *input_shape)
            The shortest changes found that evade; images themselves where none does.
        """
        evidence, size = self._cascade.evidence, self.model.rows_per_batch(images[:1])
        found = []
        with evidence.evaluating():
            for x, label in zip(
                self.model.split(images), labels.split(size), strict=True
            ):
                found.append(self._shortest(x, label.to(x.device)).to(images))
        return torch.cat(found)

    def _shortest(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the shortest of all searches, for a batch."""
        with torch.no_grad():
            clean = self.model.logits(x)
        others = clean.scatter(1, label[:, None], -torch.inf)
        targets = list(others.topk(self.n_targets, dim=1).indices.T)
        searches: list[tuple[Tensor, Tensor | None]] = [(t, None) for t in targets]
        if self.starts is not None:
            searches.append(self._nearest_start(x, label, self.starts.to(x)))
        best, norms = x, x.new_full((len(x),), torch.inf)
        for target, start in searches:
            found = find_joint_perturbation(
                partial(self._conditions, target),
                x,
                radius=self.radius,
                holds=partial(self._evades, label),
                bounds=self.model.bounds,
                initial=start,
                n_steps=self.n_steps,
            )
            shorter = found.norms < norms
            best = found.points.where(per_row(shorter, x), best)
            norms = found.norms.minimum(norms)
        return best

    def _conditions(self, target: Tensor, x: Tensor) -> Tensor:
        """Return what must be positive, (n, m)."""
        found = self.joint.conditions(x)
        place = target[:, None, None].expand(*found.shape[:2], 1)
        return found.gather(2, place).squeeze(2)

    def _evades(self, label: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            found = self._cascade.decide(x)
        wrong = found.logits.argmax(dim=1) != label
        return wrong & (found.score <= self.joint.threshold)

    def _nearest_start(
        self, x: Tensor, label: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the class of the nearest start of another, and that start."""
        with torch.no_grad():
            told = self.model.logits(starts).argmax(dim=1)
        distance = torch.cdist(x.flatten(1), starts.flatten(1))
        nearest = distance.where(told != label[:, None], torch.inf).argmin(dim=1)
        return told[nearest], starts[nearest]
