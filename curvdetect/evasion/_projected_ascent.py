"""What the attackers share: steps uphill, within a budget and the model's bounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from curvdetect._base.checks import check_choice, check_count, check_positive
from curvdetect._base.rows import per_row
from curvdetect.network import TorchModel

__all__ = ["Norm", "Objective", "ProjectedAscent", "Slope", "wrong_margin"]

#: The norm of the budget.
Norm: TypeAlias = Literal["Linf", "L2"]
#: Steps go from this share of the budget down to a tenth of it, and from more where
#: there are few: together they are at least so many budgets long.
_FIRST_STEP = 0.25
_PATH = 2.5


class Slope(NamedTuple):
    """What is known of the images that a step starts from, all without a graph.

    Attributes
    ----------
    margin : Tensor of shape (n,)
        Of the wrong classes: positive where an image is misclassified.
    value : Tensor of shape (n,)
        What is climbed.
    way : Tensor of shape (n, *input_shape)
        Uphill.
    """

    margin: Tensor
    value: Tensor
    way: Tensor


#: From images, a leaf that requires its gradient, to their slope.
Objective: TypeAlias = Callable[[Tensor], Slope]


class ProjectedAscent(ABC):
    """Climb an objective inside a ball around each image; keep the best image.

    An image that the model gets wrong is better than one that it gets right; between
    two wrong ones the larger value decides, between two right ones the margin.
    """

    def __init__(
        self, model: TorchModel, *, eps: float, norm: Norm, steps: int
    ) -> None:
        check_positive("eps", eps)
        check_choice("norm", norm, get_args(Norm))
        check_count("steps", steps)
        self.model = model
        self.eps = eps
        self.norm = norm
        self.steps = steps

    @abstractmethod
    def _objective(self, images: Tensor, labels: Tensor) -> Objective:
        """Return what is climbed from these images, away from these labels."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Perturb images within the budget.

        Parameters
        ----------
        images : Tensor of shape (n, *input_shape)
            On the model's device, within its bounds.
        labels : Tensor of shape (n,)
            Labels to get away from.

        Returns
        -------
        Tensor of shape (n, *input_shape)
            The best images met, within the bounds and the budget.
        """
        images, labels = images.detach(), labels.to(images.device)
        if not len(images):
            return images
        with self.model.evaluating():
            objective = self._objective(images, labels)
            x, best = images.clone(), _Best.of(images)
            for length in [*self._step_lengths(), 0.0]:
                slope = objective(x.requires_grad_())
                x = x.detach()
                best = best.or_better(x, slope)
                x = self._project(x + length * self._unit(slope.way), images)
        return best.images

    def _step_lengths(self) -> list[float]:
        shares = 10 ** (-torch.arange(self.steps) / self.steps)
        shares *= max(_FIRST_STEP, _PATH / float(shares.sum()))
        return [share * self.eps for share in shares.tolist()]

    def _unit(self, way: Tensor) -> Tensor:
        way = way.nan_to_num(0, 0, 0)
        if self.norm == "Linf":
            return way.sign()
        length = way.flatten(1).norm(dim=1)
        return way / per_row(length.clamp(min=torch.finfo(way.dtype).tiny), way)

    def _project(self, x: Tensor, images: Tensor) -> Tensor:
        """Return points within the budget and the bounds."""
        change = x - images
        if self.norm == "Linf":
            change = change.clamp(-self.eps, self.eps)
        else:
            length = change.flatten(1).norm(dim=1)
            change = change * per_row((self.eps / length).clamp(max=1), x)
        # Images lie within the bounds, so this never lengthens the change.
        bounds = self.model.bounds or (-torch.inf, torch.inf)
        return (images + change).clamp(*bounds)


class _Best(NamedTuple):
    """The best images so far, what they are worth, and whether they are wrong."""

    images: Tensor
    value: Tensor
    wrong: Tensor

    @classmethod
    def of(cls, images: Tensor) -> _Best:
        """Return what anything is better than."""
        value = images.new_full((len(images),), -torch.inf)
        return cls(images, value, torch.zeros_like(value, dtype=torch.bool))

    def or_better(self, x: Tensor, slope: Slope) -> _Best:
        """Return the better of what is here and other images, one by one."""
        wrong = slope.margin > 0
        value = slope.value.where(wrong, slope.margin)
        better = (wrong & ~self.wrong) | ((wrong == self.wrong) & (value > self.value))
        return _Best(
            x.where(per_row(better, x), self.images),
            value.where(better, self.value),
            self.wrong | wrong,
        )


def wrong_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest logit of the other classes minus that of the label."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.max(1).values - own
