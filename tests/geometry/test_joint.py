import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from curvdetect.geometry import find_joint_perturbation


def nearest_by_scipy(A, b, x, bounds=None):
    """Return the distance to {z : A z > b}, by a solver for constrained problems."""
    solved = minimize(
        lambda z: np.sum((z - x) ** 2),
        np.clip(x + 1, *bounds) if bounds else x + 1,
        constraints={"type": "ineq", "fun": lambda z: A @ z - b},
        bounds=[bounds] * len(x) if bounds else None,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert solved.success
    return np.sqrt(solved.fun)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_several_half_spaces_as_scipy_finds_it(bounds):
    generator = np.random.default_rng(0)
    for _ in range(5):
        A = generator.normal(size=(3, 8))
        x = generator.uniform(0.3, 0.7, size=8)
        b = A @ x + generator.uniform(0.2, 0.6, size=3)
        expected = nearest_by_scipy(A, b, x, bounds)
        matrix, offset = torch.from_numpy(A), torch.from_numpy(b)
        found = find_joint_perturbation(
            lambda z, matrix=matrix, offset=offset: z @ matrix.T - offset,
            torch.from_numpy(x)[None],
            radius=0.5,
            bounds=bounds,
            n_steps=300,
        )
        assert expected * 0.999 < float(found.norms) < expected * 1.1
        assert ((matrix @ found.points[0]) > offset).all()
        if bounds:
            assert (found.points >= 0).all()
            assert (found.points <= 1).all()


def test_one_condition_is_the_distance():
    x = torch.tensor([[0.3, 0.4], [0.6, 0.0]])
    found = find_joint_perturbation(lambda z: z.norm(dim=1)[:, None] - 1, x, radius=0.1)
    assert found.norms == pytest.approx([0.5, 0.4], rel=0.05)


def test_what_counts_is_what_holds():
    """The conditions are a poor guide: one half of what is sought."""
    x = torch.zeros(1, 2)
    found = find_joint_perturbation(
        lambda z: z[:, :1], x, radius=0.5, holds=lambda z: z[:, 0] > 1
    )
    assert float(found.norms) == pytest.approx(1, rel=0.05)


def test_nothing_found_is_infinity_and_the_point_itself():
    x = torch.rand(2, 3)
    found = find_joint_perturbation(lambda z: z - 2, x, radius=1.0, bounds=(0, 1))
    assert found.norms.isinf().all()
    assert torch.equal(found.points, x)


def test_rows_do_not_depend_on_others():
    x = torch.rand(4, 5, dtype=torch.float64)

    def conditions(z):
        return torch.stack([z.sum(1) - 4, z[:, 0] - z[:, 1] + 0.1], dim=1)

    together = find_joint_perturbation(conditions, x, radius=0.5).norms
    alone = [
        find_joint_perturbation(conditions, row[None], radius=0.5).norms for row in x
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_start_of_ones_own():
    """Two ways out, and the start decides which is found."""
    x = torch.tensor([[0.1]])
    found = find_joint_perturbation(
        lambda z: z.abs() - 1, x, radius=0.5, initial=torch.tensor([[-0.5]])
    )
    assert float(found.points) < -1


def test_a_start_at_the_point_itself():
    x = torch.tensor([[0.3, 0.4]])
    outside = lambda z: z.norm(dim=1)[:, None] - 1
    found = find_joint_perturbation(outside, x, radius=0.1, initial=x, n_steps=400)
    assert float(found.norms) == pytest.approx(0.5, rel=0.05)


def test_a_condition_that_is_zero_does_not_hold():
    """On the boundary no class has won: the point itself is no perturbation."""
    x = torch.zeros(1, 2)
    found = find_joint_perturbation(lambda z: z[:, :1], x, radius=1.0, n_steps=50)
    assert 0 < float(found.norms) < 0.2
    assert float(found.points[0, 0]) > 0


@pytest.mark.parametrize(
    "wrong", [{"radius": 0}, {"n_steps": 0}, {"bounds": (1.0, 0.0)}]
)
def test_parameters_that_are_not_allowed(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        find_joint_perturbation(
            lambda z: z, torch.zeros(1, 2), **{"radius": 1.0} | wrong
        )


@pytest.mark.parametrize("start", [40.0, 4.0])
def test_a_confident_start_comes_back(start):
    """Far beyond, nothing pulls: the gradient is exactly zero there."""
    x = torch.zeros(1, 4)
    found = find_joint_perturbation(
        lambda z: z.sum(1, keepdim=True) - 2,
        x,
        radius=1.0,
        initial=torch.full((1, 4), start),
        n_steps=250,
    )
    assert float(found.norms) == pytest.approx(1, rel=0.02)


def test_without_any_gradient_nothing_is_found_and_nothing_is_nan():
    x = torch.zeros(2, 3)
    for radius in (1.0, 20.0):
        found = find_joint_perturbation(lambda z: (z - 9).relu() - 1, x, radius=radius)
        assert found.norms.isinf().all()
        assert torch.equal(found.points, x)
