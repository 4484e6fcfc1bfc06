"""Give an image the logits of a natural image of another class."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect.evasion._projected_ascent import (
    Norm,
    Objective,
    ProjectedAscent,
    Slope,
    wrong_margin,
)
from curvdetect.network import TorchModel

__all__ = ["LogitMatchingAttack"]


class LogitMatchingAttack(ProjectedAscent):
    """Give an image the logits that a natural image of another class has.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    references : Tensor of shape (n_references, *input_shape)
        Natural images, of at least two predicted classes. The target of each image is
        the reference of another class whose logits are nearest to its own.
    eps : float
        Budget, in input units.
    norm : {"Linf", "L2"}, default="Linf"
        Norm of the budget.
    steps : int, default=40
        Gradient steps; each costs 3 forward passes an image.

    References
    ----------
    F. Tramer, N. Carlini, W. Brendel, A. Madry, "On adaptive attacks to adversarial
    example defenses", NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.evasion import LogitMatchingAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(2,))
    >>> attack = LogitMatchingAttack(model, references=torch.eye(2), eps=1.0)
    >>> attack(torch.tensor([[0.8, 0.3]]), torch.tensor([0])).round(decimals=1)
    tensor([[0., 1.]])
    """

    def __init__(
        self,
        model: TorchModel,
        *,
        references: Tensor,
        eps: float,
        norm: Norm = "Linf",
        steps: int = 40,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, steps=steps)
        self.references = references

    def _objective(self, images: Tensor, labels: Tensor) -> Objective:
        aim = self._aim(images, labels)

        def objective(x: Tensor) -> Slope:
            logits = self.model.logits(x)
            value = -(logits - aim).square().sum(1)
            (way,) = torch.autograd.grad(value.sum(), x)
            return Slope(wrong_margin(logits, labels).detach(), value.detach(), way)

        return objective

    def _aim(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the logits that each image is to have."""
        logits = torch.from_numpy(self.model.predict_logits(self.references)).to(images)
        own = torch.from_numpy(self.model.predict_logits(images)).to(images)
        of_label = logits.argmax(1) == labels[:, None]
        if bool(of_label.all(1).any()):
            raise ValueError(
                "references must hold images of at least two predicted classes; all "
                f"{len(logits)} are of one"
            )
        distance = torch.cdist(own, logits).masked_fill(of_label, torch.inf)
        return logits[distance.argmin(1)]
