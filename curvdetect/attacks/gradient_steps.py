"""Steps along the gradient of the loss: one (FGSM, FGM) or several (PGD)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from curvdetect._base.checks import check_choice, check_count, check_positive
from curvdetect._base.rows import per_row
from curvdetect.network import TorchModel

__all__ = ["GradientStepsAttack", "Norm"]

Norm = Literal["linf", "l2"]
#: Steps of an iterated attack add up to so many times the budget.
_REACH = 2.5


class GradientStepsAttack:
    """Go up the cross-entropy of the label, within a budget and the model's bounds.

    With one step it is FGSM ("linf") or the fast gradient method ("l2"), from the image
    itself; with several, projected gradient descent from a random point within the
    budget, drawn by torch's global generator.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    budget : float
        Largest change of a value ("linf"), or largest L2 norm of the perturbation
        ("l2"); in input units.
    norm : {"linf", "l2"}, default="linf"
        Of what the budget is.
    steps : int, default=1
        How many.

    References
    ----------
    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial
    examples", ICLR 2015. A. Madry et al., "Towards deep learning models resistant to
    adversarial attacks", ICLR 2018.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.attacks import GradientStepsAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> attack = GradientStepsAttack(model, budget=0.25)
    >>> attack(torch.tensor([[0.7, 0.5, 0.1]]), torch.tensor([0]))
    tensor([[0.4500, 0.7500, 0.3500]])
    """

    def __init__(
        self,
        model: TorchModel,
        *,
        budget: float,
        norm: Norm = "linf",
        steps: int = 1,
    ) -> None:
        check_positive("budget", budget)
        check_choice("norm", norm, get_args(Norm))
        check_count("steps", steps)
        self.model, self.budget, self.norm, self.steps = model, budget, norm, steps

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Perturb images.

        Parameters
        ----------
        images : Tensor of shape (n, *input_shape)
            On the model's device, within its bounds.
        labels : Tensor of shape (n,)
            Labels to get away from.

        Returns
        -------
        Tensor of shape (n, *input_shape)
            Perturbed images, within bounds and budget. Cost: a forward and a backward
            pass a step.
        """
        low, high = self.model.bounds or (-torch.inf, torch.inf)
        size = self.budget * (1.0 if self.steps == 1 else _REACH / self.steps)
        found = images.detach()
        if self.steps > 1:
            found = (found + self._start(found)).clamp(low, high)
        with self.model.evaluating():
            for _ in range(self.steps):
                ahead = found + size * self._direction(self._gradient(found, labels))
                change = self._projected(ahead - images)
                found = (images + change).clamp(low, high).detach()
        return found

    def _gradient(self, x: Tensor, labels: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        loss = cross_entropy(self.model.logits(x), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        return gradient

    def _start(self, images: Tensor) -> Tensor:
        if self.norm == "linf":
            return self.budget * (2 * torch.rand_like(images) - 1)
        away = self._direction(torch.randn_like(images))
        return away * per_row(
            self.budget * torch.rand_like(away.flatten(1)[:, 0]), away
        )

    def _direction(self, gradient: Tensor) -> Tensor:
        """Return the step of length 1 along which a linear loss rises most."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / per_row(_lengths(gradient), gradient)

    def _projected(self, change: Tensor) -> Tensor:
        if self.norm == "linf":
            return change.clamp(-self.budget, self.budget)
        return change * per_row((self.budget / _lengths(change)).clamp(max=1), change)


def _lengths(x: Tensor) -> Tensor:
    """Return the L2 norm of each row, but never 0."""
    return x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
