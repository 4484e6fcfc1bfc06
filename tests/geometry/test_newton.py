"""The cheap way to boundaries: onto them, or to the safe way where it fails."""

import pytest
import torch

from curvdetect.geometry import (
    find_boundary,
    margin_value_and_gradient,
    nearest_classes,
    step_to_boundary,
)
from curvdetect.study import metrics


def ellipsoid(x):
    return 1 - (x[:, 0] / 2) ** 2 - x[:, 1] ** 2 - (2 * x[:, 2]) ** 2


@pytest.fixture
def starts():
    generator = torch.Generator().manual_seed(0)
    x = 0.2 * torch.rand(40, 3, generator=generator, dtype=torch.float64) + 0.2
    value, gradient = margin_value_and_gradient(ellipsoid, x)
    return x, x - (value / gradient.square().sum(1))[:, None] * gradient


@pytest.mark.parametrize("tol", [0.3, 0.1, 0.01, 1e-4])
def test_what_is_left_is_of_second_order(starts, tol):
    x, z = starts
    near = step_to_boundary(ellipsoid, x, z, tol=tol, batch_size=None)
    assert near.found.all()
    torch.testing.assert_close(near.value, ellipsoid(near.points))
    slope = near.gradient.norm(dim=1)
    left = near.value.abs() / slope / (near.points - x).norm(dim=1)
    assert left.max() < tol**2
    assert left.max() > 0


def test_where_newtons_method_diverges_the_safe_one_is_taken():
    """Newton's method doubles the distance to the root of a cube root at each step."""

    def cube_root(x):
        return x[:, 0].sign() * x[:, 0].abs() ** (1 / 3) + 0 * x[:, 1]

    x = torch.tensor([[0.5, 0.1], [-0.3, 0.2]], dtype=torch.float64)
    near = step_to_boundary(cube_root, x, x, tol=0.1, batch_size=None)
    assert near.found.all()
    assert near.points[:, 0].abs().max() < 1e-3


def test_no_boundary_is_a_value():
    def bowl(x):
        return 1 + x.square().sum(1)

    x = torch.tensor([[0.5, 0.1], [0.0, 0.0]], dtype=torch.float64)
    near = step_to_boundary(bowl, x, x, tol=0.1, batch_size=None)
    assert not near.found.any()
    assert near.points.isfinite().all()


def test_as_near_as_the_safe_way_on_a_network(model, images):
    x = torch.from_numpy(images[0][:30])
    with model.evaluating():
        around = nearest_classes(model.logits, x, 9, batch_size=None)
        margin, x = around.pairs.margin(model.logits), around.pairs.rows(x)
        z = x + around.step()
        near = step_to_boundary(margin, x, z, tol=0.1, batch_size=64)
        safe = find_boundary(margin, z, n_projections=0, batch_size=64)
    assert near.found.all()
    apart = (near.points - safe.points).flatten(1).norm(dim=1)
    distance = (safe.points - x).flatten(1).norm(dim=1)
    assert (apart / distance).median() < 0.02
    assert (apart / distance).quantile(0.9) < 0.1
    # The last step leads to the foot of the perpendicular: nearer to where it began.
    way, safe_way = (p.points.sub(z).flatten(1).norm(dim=1) for p in (near, safe))
    assert way.mean() < safe_way.mean()


def test_gradients_of_all_margins_from_one_forward_pass(model, images):
    x = torch.from_numpy(images[0][:7])
    with model.evaluating(), metrics.count_passes(model.module) as passes:
        around = nearest_classes(model.logits, x, 9, batch_size=3)
    assert passes.forward_equivalents == 7 * (1 + 9 * 2)
    with model.evaluating():
        margin = around.pairs.margin(model.logits)
        value, gradient = margin_value_and_gradient(margin, x.repeat_interleave(9, 0))
    by_row = around.value.flatten(), around.gradient.flatten(0, 1)
    torch.testing.assert_close(by_row[0], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_row[1], gradient, rtol=1e-3, atol=1e-5)
    assert (around.distances.diff(dim=1) >= 0).all()
