"""Surfaces whose curvature is known: margin, point on it, principal curvatures."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Surface:
    name: str
    margin: object
    point: torch.Tensor  # shape (d,)
    curvatures: tuple

    @property
    def mean(self):
        return sum(self.curvatures) / len(self.curvatures)

    def __str__(self):
        return self.name


def _point(*values):
    return torch.tensor(values, dtype=torch.float64)


def _weighted_squares(weights):
    weights = _point(*weights)
    return lambda x: 1 - (weights * x**2).sum(1)


SURFACES = [
    Surface(
        "plane",
        lambda x: x @ _point(1, 2, -1) - 1,
        _point(1, 0, 0),
        (0.0, 0.0),
    ),
    Surface(
        "ball of radius 2",
        lambda x: 2 - x.norm(dim=1),
        _point(0, 1.2, -1.6),
        (0.5, 0.5),
    ),
    Surface(
        "outside of a ball of radius 2",
        lambda x: x.norm(dim=1) - 2,
        _point(0, 1.2, -1.6),
        (-0.5, -0.5),
    ),
    Surface(
        "ball in ten dimensions",
        lambda x: 9 - x.square().sum(1),
        3 * torch.ones(10, dtype=torch.float64) / 10**0.5,
        (1 / 3,) * 9,
    ),
    Surface(
        "cylinder of radius 0.5",
        lambda x: 0.5 - x[:, :2].norm(dim=1),
        _point(0.3, 0.4, 7.0),
        (2.0, 0.0),
    ),
    Surface(
        "ellipsoid with half-axes 3, 2, 1",
        _weighted_squares((1 / 9, 1 / 4, 1.0)),
        _point(3, 0, 0),
        (3 / 4, 3.0),
    ),
    Surface(
        "saddle",
        lambda x: -x[:, 2] - (2 * x[:, 0] ** 2 - 3 * x[:, 1] ** 2) / 2,
        _point(0, 0, 0),
        (2.0, -3.0),
    ),
]
