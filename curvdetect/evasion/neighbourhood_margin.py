"""Make the model wrong all around the perturbed image."""

from __future__ import annotations

import torch
from torch import Tensor

from curvdetect._base.checks import check_count, check_positive
from curvdetect.evasion._projected_ascent import (
    Norm,
    Objective,
    ProjectedAscent,
    Slope,
    wrong_margin,
)
from curvdetect.geometry import random_directions
from curvdetect.network import TorchModel

__all__ = ["NeighbourhoodMarginAttack"]


class NeighbourhoodMarginAttack(ProjectedAscent):
    """Make the model wrong all around the perturbed image.

    Climbs the mean over random neighbours x' + h u of the largest wrong logit minus
    the right one: where the neighbours are wrong too, the surroundings look like those
    of a natural image. Fresh directions u at every step: an expectation over what the
    detector draws.

    Parameters
    ----------
    model : TorchModel
        The model under attack.
    eps : float
        Budget, in input units.
    radius : float
        h, an L2 length; the detector's step, or longer.
    n_neighbors : int, default=8
        Directions at each step, each used both ways.
    norm : {"Linf", "L2"}, default="Linf"
        Norm of the budget.
    steps : int, default=40
        Gradient steps; each costs 3 (2 n_neighbors + 1) forward passes an image.
    seed : int, default=0
        Of the directions.

    References
    ----------
    A. Athalye, L. Engstrom, A. Ilyas, K. Kwok, "Synthesizing robust adversarial
    examples", ICML 2018 (expectation over transformations).

    Examples
    --------
    >>> import torch
    >>> from curvdetect import TorchModel
    >>> from curvdetect.evasion import NeighbourhoodMarginAttack
    >>> model = TorchModel(torch.nn.Identity().eval(), input_shape=(3,))
    >>> attack = NeighbourhoodMarginAttack(model, eps=0.3, radius=0.1)
    >>> attack(torch.tensor([[0.7, 0.3, 0.1]]), torch.tensor([0])).argmax(dim=1)
    tensor([1])
    """

    def __init__(
        self,
        model: TorchModel,
        *,
        eps: float,
        radius: float,
        n_neighbors: int = 8,
        norm: Norm = "Linf",
        steps: int = 40,
        seed: int = 0,
    ) -> None:
        super().__init__(model, eps=eps, norm=norm, steps=steps)
        check_positive("radius", radius)
        check_count("n_neighbors", n_neighbors)
        self.radius = radius
        self.n_neighbors = n_neighbors
        self.seed = seed

    def _objective(self, images: Tensor, labels: Tensor) -> Objective:
        generator = torch.Generator().manual_seed(self.seed)

        def objective(x: Tensor) -> Slope:
            u = self.radius * random_directions(
                self.n_neighbors,
                x.shape[1:],
                generator=generator,
                dtype=x.dtype,
                device=x.device,
            )
            shifts = torch.cat([u.new_zeros(1, *u.shape[1:]), u, -u])
            neighbours = (x[:, None] + shifts).flatten(0, 1)
            repeated = labels.repeat_interleave(len(shifts))
            margins = wrong_margin(self.model.logits(neighbours), repeated)
            margins = margins.reshape(len(x), len(shifts))
            value = margins.mean(1)
            (way,) = torch.autograd.grad(value.sum(), x)
            return Slope(margins[:, 0].detach(), value.detach(), way)

        return objective
