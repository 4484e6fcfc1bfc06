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


def _torus(x, large=3.0, small=1.0):
    return small - torch.stack([x[:, :2].norm(dim=1) - large, x[:, 2]]).norm(dim=0)


def random_quadric(curvatures, seed):
    """A quadric through the origin with these principal curvatures there, any d."""
    generator = torch.Generator().manual_seed(seed)
    d = len(curvatures) + 1
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)
    frame, _ = torch.linalg.qr(draw(d, d))
    normal, tangents = frame[:, 0], frame[:, 1:]
    steepness = 0.5 + draw(1).abs()
    kappa = torch.as_tensor(curvatures, dtype=torch.float64)
    H = -steepness * (tangents * kappa) @ tangents.T
    mixed = torch.outer(normal, draw(d))  # what the tangent space does not see
    H = H + mixed + mixed.T
    margin = lambda x: steepness * (x @ normal) + ((x @ H) * x).sum(1) / 2
    return margin, torch.zeros(1, d, dtype=torch.float64)


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
    Surface("torus, outside", _torus, _point(4, 0, 0), (1.0, 0.25)),
    Surface("torus, inside", _torus, _point(0, 2, 0), (1.0, -0.5)),
    Surface(
        "hyperboloid of one sheet with half-axes 3, 2, 1",
        _weighted_squares((1 / 9, 1 / 4, -1.0)),
        _point(3, 0, 0),
        (3 / 4, -3.0),
    ),
]
