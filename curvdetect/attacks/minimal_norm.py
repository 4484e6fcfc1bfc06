"""The minimal perturbation, made an attack."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect._base.checks import check_positive
from curvdetect.geometry import Perturbation, find_adversarial_perturbation
from curvdetect.network import TorchModel

__all__ = ["MinimalNormAttack", "smallest"]


class MinimalNormAttack:
    """Go just across the nearest boundary found: a minimal L2 perturbation.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    factor : float, default=1.02
        Length of the perturbation, as a multiple of the way to the boundary.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.attacks import MinimalNormAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> MinimalNormAttack(model)(torch.tensor([[0.7, 0.3, 0.1]]), torch.tensor([0]))
    tensor([[0.4960, 0.5040, 0.1000]])
    """

    def __init__(self, model: TorchModel, *, factor: float = 1.02) -> None:
        check_positive("factor", factor)
        self.model = model
        self.factor = factor

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Perturb images towards their nearest boundary.

        Parameters
        ----------
        images : Tensor of shape (n, *input_shape)
            On the model's device, within its bounds.
        labels : Tensor of shape (n,)
            Labels to get away from.

        Returns
        -------
        Tensor of shape (n, *input_shape)
            Perturbed images within the bounds; unchanged where no boundary is found.
            Cost: that of
            :func:`curvdetect.geometry.find_adversarial_perturbation`.
        """
        return self.along(images, smallest(self.model, images, labels).points)

    def along(self, images: Tensor, points: Tensor) -> Tensor:
        """Perturb images whose nearest boundary points are known already.

        Parameters
        ----------
        images, points : Tensor of shape (n, *input_shape)
            Images, and a point on the boundary for each.

        Returns
        -------
        Tensor of shape (n, *input_shape)
            `factor` times as far, within the bounds.
        """
        way = self.factor * (points - images)
        return (images + way).clamp(*(self.model.bounds or (-torch.inf, torch.inf)))


def smallest(
    model: TorchModel,
    images: Tensor,
    labels: Tensor,
    *,
    n_boundaries: int = 5,
    n_projections: int = 20,
) -> Perturbation:
    """Return the smallest perturbations of a batch, within the model's bounds."""
    with model.evaluating():
        return find_adversarial_perturbation(
            model.logits,
            images,
            label=labels,
            n_boundaries=n_boundaries,
            n_projections=n_projections,
            bounds=model.bounds,
            batch_size=model.rows_per_batch(images[:1]),
        )
