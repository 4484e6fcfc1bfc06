"""Be misclassified and stay below the detector's threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from curvdetect._base.rows import dot, per_row
from curvdetect.evasion._projected_ascent import (
    Norm,
    Objective,
    ProjectedAscent,
    Slope,
    wrong_margin,
)
from curvdetect.network import TorchModel

__all__ = ["EvasionAttack"]


class EvasionAttack(ProjectedAscent):
    """Be misclassified and stay below the detector's threshold.

    Where the image is still classified right, a step climbs the margin of the wrong
    classes; where it is wrong but flagged, a step descends the score. Either goes
    along what is orthogonal to the other's gradient, so that what was reached is not
    lost ("orthogonal PGD"; with the signs of an L-infinity step only nearly so);
    `orthogonal=False` takes the gradients as they are ("selective PGD"). Where it is
    wrong and not flagged nothing moves any more.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    score : callable
        Differentiable score, (n, *input_shape) -> (n,) or (n, n_scores), such as
        :class:`SignalScore`; an image is flagged if any is above its threshold.
    threshold : float or sequence of float
        One, or one for each score.
    eps : float
        Budget, in input units.
    norm : {"Linf", "L2"}, default="Linf"
        Norm of the budget.
    steps : int, default=40
        Gradient steps; each costs 3 forward passes an image and those of the score
        and its gradient.
    orthogonal : bool, default=True
        Whether steps keep away from the other objective's gradient.

    References
    ----------
    O. Bryniarski, N. Hingun, P. Pachuca, V. Wang, N. Carlini, "Evading adversarial
    example detection defenses with orthogonal projected gradient descent", ICLR 2022.

    Examples
    --------
    A score that flags whatever has a large third value.

    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.evasion import EvasionAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> attack = EvasionAttack(model, lambda x: x[:, 2], 0.4, eps=0.5)
    >>> attack(torch.tensor([[0.6, 0.4, 0.5]]), torch.tensor([0])).argmax(dim=1)
    tensor([1])
    """

    def __init__(
        self,
        model: TorchModel,
        score: Callable[[Tensor], Tensor],
        threshold: float | Sequence[float],
        *,
        eps: float,
        norm: Norm = "Linf",
        steps: int = 40,
        orthogonal: bool = True,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, steps=steps)
        self.score = score
        self.threshold = threshold
        self.orthogonal = orthogonal

    def _objective(self, images: Tensor, labels: Tensor) -> Objective:
        def objective(x: Tensor) -> Slope:
            margin = wrong_margin(self.model.logits(x), labels)
            (to_wrong,) = torch.autograd.grad(margin.sum(), x)
            largest, excess, down = self._above_threshold(x)
            wrong, flagged = margin > 0, largest > 0
            if self.orthogonal:
                to_wrong, down = _without(to_wrong, down), _without(down, to_wrong)
            way = down.where(per_row(wrong, x), to_wrong)
            way = way.where(per_row(~wrong | flagged, x), torch.zeros_like(way))
            return Slope(margin.detach(), -excess, way)

        return objective

    def _above_threshold(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the most above a threshold, all that is above, and the way down."""
        score = self.score(x)
        score = score[:, None] if score.ndim == 1 else score
        above = score - torch.as_tensor(
            self.threshold, dtype=score.dtype, device=score.device
        )
        largest, excess = above.amax(1), above.relu().sum(1)
        # Below the threshold the excess has no gradient, but there is a way to lose it.
        objective = excess.where(largest > 0, largest)
        (to_flag,) = torch.autograd.grad(objective.sum(), x)
        return largest.detach(), excess.detach(), -to_flag.nan_to_num(0, 0, 0)


def _without(a: Tensor, b: Tensor) -> Tensor:
    """Return the part of each row of `a` that is orthogonal to that of `b`."""
    square = dot(b, b).clamp(min=torch.finfo(b.dtype).tiny)
    return a - per_row(dot(a, b) / square, a) * b
