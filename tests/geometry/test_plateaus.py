"""Searches where gradients are tiny, or vanish: distances in closed form."""

import math

import pytest
import torch
from torch import nn

from curvdetect.geometry import (
    BoundaryPoints,
    PairwiseMargin,
    find_adversarial_perturbation,
    find_boundary,
    nearest_classes,
    step_to_boundary,
)
from curvdetect.geometry._nearer import search_nearer


def points(*shape, seed=0, length=0.3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return length * x / x.flatten(1).norm(dim=1, keepdim=True)


def sphere(x):
    """How far inside of the unit sphere."""
    return 1 - x.norm(dim=1)


MARGINS = {
    "saturated": lambda x: torch.tanh(20 * sphere(x)),
    "very steep": lambda x: torch.tanh(200 * (sphere(x) - 0.6)),
    "probabilities": lambda x: 2 * torch.sigmoid(30 * sphere(x)) - 1,
    "a ramp after a plateau": lambda x: (
        1 - 1e-3 * x.norm(dim=1) - 50 * (x.norm(dim=1) - 1 + 0.02).relu()
    ),
    "bumps on the way": lambda x: (
        torch.tanh(10 * sphere(x)) + 0.02 * torch.sin(25 * x.norm(dim=1))
    ),
}


def to_the_sphere(margin, x):
    """The distance to the first root on the ray outwards: margins of |x| alone."""
    unit = x / x.norm(dim=1, keepdim=True)
    low, high = torch.zeros(len(x)).double(), 2 * torch.ones(len(x)).double()
    for _ in range(60):
        middle = (low + high) / 2
        inside = margin(x + middle[:, None] * unit) > 0
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return high


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("search", ["find", "step"])
def test_the_boundary_behind_a_plateau(name, search):
    margin, x = MARGINS[name], points(20, 6, length=0.2)
    before = x.clone()
    if search == "find":
        found = find_boundary(margin, x, n_projections=20)
    else:
        leaf = x.clone().requires_grad_()
        value = margin(leaf)
        (g,) = torch.autograd.grad(value.sum(), leaf)
        z = x - (value / g.square().sum(1)).detach()[:, None] * g
        found = step_to_boundary(margin, x, z, tol=0.1)
    assert bool(found.found.all())
    expected = to_the_sphere(margin, x)
    # "step" leaves what is of second order in tol.
    tolerance = {"find": 1e-3, "step": 5e-2}[search]
    torch.testing.assert_close(found.distances, expected, rtol=tolerance, atol=0)
    assert torch.equal(x, before)


def saturated_planes(normals, scale):
    """Class j beyond n_j . x = 1, nearly one-hot: class 0 has the constant 1/2."""

    def logits(x):
        beyond = torch.sigmoid(scale * (x @ normals.T.to(x) - 1))
        return torch.cat([0.5 + 0 * beyond[:, :1], beyond], dim=1)

    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [10.0, 40.0])
def test_planes_of_a_network_that_saturates(dtype, scale):
    normals = points(4, 8, seed=1, length=1.0)
    x = points(30, 8, length=0.4).to(dtype)
    logits = saturated_planes(normals, scale)
    expected = 1 - x @ normals.T.to(dtype)
    near = nearest_classes(logits, x, 4)
    margin, rows = near.pairs.margin(logits), near.pairs.rows(x)
    found = find_boundary(margin, rows)
    assert bool(found.found.all())
    assert bool((found.value.abs() < 0.01).all())
    wanted = expected.gather(1, near.pairs.classes - 1).flatten()
    torch.testing.assert_close(found.distances, wanted, rtol=1e-3, atol=0)
    smallest = find_adversarial_perturbation(logits, x)
    torch.testing.assert_close(smallest.norms, expected.amin(1), rtol=1e-3, atol=0)
    boxed = find_adversarial_perturbation(logits, x, bounds=(-5.0, 5.0))
    torch.testing.assert_close(boxed.norms, expected.amin(1), rtol=1e-3, atol=0)


def test_a_network_trained_to_be_one_hot():
    """Against the nearest point of another class on a grid."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    network = layers.double()
    centres = torch.tensor([[0.3, 0.3], [0.7, 0.7]], dtype=torch.float64)
    y = torch.arange(400) % 2
    x = centres[y] + 0.06 * torch.randn(400, 2, dtype=torch.float64)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        (network(x) - nn.functional.one_hot(y, 2)).square().mean().backward()
        optimizer.step()
    network.requires_grad_(False)
    x = x[:40]
    axis = torch.linspace(-0.5, 1.5, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    label = network(x).argmax(1)
    other = torch.cdist(x, grid).where(network(grid).argmax(1) != label[:, None], 9)
    reference = other.amin(1)
    found = find_adversarial_perturbation(network, x)
    assert bool(found.found.all())
    ratio = found.norms / reference
    assert float(ratio.median()) < 1.02
    assert float(ratio.max()) < 1.5
    assert float(ratio.min()) > 0.97


# Points without a gradient --------------------------------------------------


@pytest.mark.parametrize("bounds", [None, (-3.0, 3.0)])
@pytest.mark.parametrize("d", [1, 2, 20])
def test_the_centre_of_a_ball(d, bounds):
    margin = lambda x: 1 - x.square().sum(1)
    found = find_boundary(margin, torch.zeros(2, d).double(), bounds=bounds)
    assert found.distances.tolist() == pytest.approx([1, 1], rel=1e-4)
    assert found.found.tolist() == [True, True]


def test_a_saddle():
    """1 + x^2 - 4 y^2 vanishes at y = +-1/2, and falls from (0, 0) along y alone."""
    margin = lambda x: 1 + x[:, 0] ** 2 - 4 * x[:, 1] ** 2
    logits = lambda x: torch.stack([margin(x), 0 * x[:, 0]], dim=1)
    found = find_adversarial_perturbation(logits, torch.zeros(1, 2).double())
    assert float(found.norms) == pytest.approx(0.5, rel=1e-3)


def test_half_way_between_two_boundaries():
    """Exactly symmetric, and without a gradient: either side is right."""
    margin = lambda x: 0.25 - (x[:, 0] - 2) ** 2
    found = find_boundary(margin, torch.tensor([[2.0, 1.0]]).double())
    assert float(found.distances) == pytest.approx(0.5, rel=1e-3)


def test_beside_a_plateau_without_a_gradient():
    """Nothing points to the boundary at (0.9, y < 0.9) from (0.5, 1)."""
    margin = lambda x: torch.where(x[:, 1] > 0.9, 1 + 0 * x[:, 0], 1 - x[:, 0])
    x = torch.tensor([[0.5, 1.0]])
    found = find_boundary(margin, x)
    assert found.found.tolist() == [True]
    assert float(margin(found.points)) < 1e-3


def test_where_there_is_no_boundary_none_is_found():
    for margin in (
        lambda x: 1 + 0 * x[:, 0],
        lambda x: 1 + x.square().sum(1),
        lambda x: torch.exp(-x[:, 0]),
    ):
        for x in (torch.zeros(2, 3), torch.ones(2, 3)):
            assert find_boundary(margin, x).found.tolist() == [False, False]


def test_rows_do_not_depend_on_each_other_or_on_the_batch_size():
    logits = saturated_planes(points(4, 8, seed=1, length=1.0), 40.0)
    x = torch.cat([points(5, 8), torch.zeros(1, 8)])
    one, two = torch.zeros(6, dtype=torch.int64), torch.arange(6) % 4 + 1
    together = find_boundary(PairwiseMargin(logits, one, two), x)
    for batch_size in (1, 4):
        alone = find_boundary(
            PairwiseMargin(logits, one[2:4], two[2:4]), x[2:4], batch_size=batch_size
        )
        torch.testing.assert_close(alone.points, together.points[2:4])


@pytest.mark.parametrize("search", ["find", "step"])
def test_a_ditch_on_the_way_is_not_stepped_over(search):
    """1 - t with a narrow ditch at 0.3, of which neither end of the way knows."""
    margin = lambda x: 1 - x[:, 0] - 2 * torch.exp(-((8 * (x[:, 0] - 0.3)) ** 2))
    x, end = torch.zeros(3, 4).double(), torch.eye(4)[:1].double().expand(3, 4)
    if search == "find":
        found = find_boundary(margin, x)
    else:
        found = step_to_boundary(margin, x, end, tol=0.1)
    near_side = to_the_sphere(lambda z: margin(z.clamp(max=0.3)), 1e-9 * end)
    assert 0.1 < float(near_side[0]) < 0.2
    torch.testing.assert_close(found.distances, near_side, rtol=1e-3, atol=0)


def test_what_is_nearest_already_stays_as_it_is():
    x = points(20, 6)
    unit = x / x.norm(dim=1, keepdim=True)
    true = torch.full((20,), 0.7, dtype=torch.float64)
    nearest = BoundaryPoints(unit, true, true > 0, 0 * true, -unit)
    again = search_nearer(sphere, x, nearest, true > 0, tol=1e-4)
    assert torch.equal(again.points, unit)
    # What is known beyond gives way; where nothing was known, what is found counts.
    beyond = nearest._replace(points=-unit, distances=true + 0.6)
    nothing = beyond._replace(found=true < 0)
    for known in (beyond, nothing):
        found = search_nearer(sphere, x, known, true > 0, tol=1e-4)
        assert bool(found.found.all())
        torch.testing.assert_close(found.distances, true, rtol=1e-3, atol=0)
        some = search_nearer(sphere, x, known, torch.arange(20) < 5, tol=1e-4)
        assert torch.equal(some.points[5:], known.points[5:])


def test_ordinary_rows_are_not_searched_again():
    """What the first order accounts for costs what it did."""
    calls = []

    def margin(x):
        calls.append(len(x))
        return 1 - x.norm(dim=1) + 0.1 * x[:, 0] ** 2

    found = find_boundary(margin, points(10, 5, length=0.7))
    assert bool(found.found.all())
    assert math.ceil(sum(calls) / 10) <= 8
