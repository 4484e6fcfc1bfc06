import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curvdetect.geometry import PairwiseMargin, find_boundary
from modules import SmoothNet


def ball(x, r=2.0):
    return r - x.norm(dim=1)


@given(
    direction=st.lists(st.floats(-1, 1), min_size=4, max_size=4),
    radius=st.floats(0.1, 6),
)
def test_distance_to_a_sphere_from_both_sides(direction, radius):
    v = torch.tensor([direction], dtype=torch.float64)
    if v.norm() < 1e-3:
        return
    x = radius * v / v.norm()
    found = find_boundary(ball, x)
    assert found.found.all()
    assert float(found.distances) == pytest.approx(abs(radius - 2), abs=1e-4)
    assert float(ball(found.points)) == pytest.approx(0, abs=1e-4)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(-5, 5))
def test_distance_to_a_plane(point, offset):
    normal = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    x = torch.tensor([point], dtype=torch.float64)
    found = find_boundary(lambda x: x @ normal - offset, x)
    expected = abs(float((x @ normal)[0]) - offset) / float(normal.norm())
    assert float(found.distances) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_projections_lead_to_the_nearest_point_of_an_ellipse():
    half_axes = torch.tensor([3.0, 2.0], dtype=torch.float64)
    ellipse = lambda x: 1 - (x / half_axes).square().sum(1)
    x = torch.tensor([[1.5, 1.0]], dtype=torch.float64)
    angle = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    curve = half_axes * torch.stack([angle.cos(), angle.sin()], dim=1)
    nearest = float((curve - x).norm(dim=1).min())
    found = [find_boundary(ellipse, x, n_projections=k).distances for k in (0, 2, 20)]
    assert float(found[2]) == pytest.approx(nearest, rel=1e-4)
    assert found[0] > found[1] >= found[2] - 1e-6


def test_a_point_on_the_boundary_stays():
    x = torch.tensor([[2.0, 0.0]])
    found = find_boundary(ball, x)
    assert found.found.all()
    assert found.distances == 0


@pytest.mark.parametrize(
    "margin",
    [
        lambda x: 1 + x.square().sum(1),  # no boundary anywhere
        lambda x: 1 + 0 * x.sum(1),  # no gradient
    ],
    ids=["no sign change", "no gradient"],
)
def test_not_found_is_a_value(margin):
    found = find_boundary(margin, torch.ones(2, 3))
    assert not found.found.any()
    assert found.points.isfinite().all()


def test_found_and_not_found_in_one_batch():
    x = torch.tensor([[0.5, 0.0], [0.5, 1.0]])
    one = lambda x: 1 + 0 * x[:, 0]
    logits = lambda x: torch.stack([one(x), x[:, 0], 0 * x[:, 0]], dim=1)
    margin = PairwiseMargin(logits, torch.tensor([0, 0]), torch.tensor([1, 2]))
    found = find_boundary(margin, x)
    assert found.found.tolist() == [True, False]


def test_a_kink_is_bracketed():
    """A margin of two slopes: Newton's step from the flat side goes too far."""
    margin = lambda x: torch.maximum(1 - x[:, 0], 0.1 * (2 - x[:, 0]))
    found = find_boundary(margin, torch.zeros(1, 2))
    assert float(found.points[0, 0]) == pytest.approx(2, abs=1e-3)


def test_bounds_are_kept():
    margin = lambda x: 1.0 - x[:, 0] - 0.1 * x[:, 1]
    x = torch.tensor([[0.5, 0.0]])
    free = find_boundary(margin, x)
    boxed = find_boundary(margin, x, bounds=(0.0, 0.97))
    assert free.points.max() > 0.97 - 1e-6
    assert boxed.found.all()
    assert boxed.points.min() >= 0
    assert boxed.points.max() <= 0.97
    assert margin(boxed.points).abs() < 1e-3


def test_rows_do_not_depend_on_each_other_or_on_the_batch_size():
    module = SmoothNet()
    x = torch.randn(6, 6, dtype=torch.float64)
    i = module(x).argmax(1)
    margin = PairwiseMargin(module, i, (i + 1) % 3)
    everything = find_boundary(margin, x)
    for batch_size in (1, 4):
        other = find_boundary(margin, x, batch_size=batch_size)
        torch.testing.assert_close(other.points, everything.points)
    rows = torch.tensor([4, 0])
    some = find_boundary(margin.take(rows), x[rows])
    torch.testing.assert_close(some.points, everything.points[rows])


def test_images_keep_their_shape(model, images):
    x = torch.from_numpy(images[0][:3])
    i = model.logits(x).argmax(1)
    found = find_boundary(model.margin(i, (i + 1) % 10), x)
    assert found.points.shape == x.shape
    assert found.distances.shape == (3,)
    logits = model.logits(found.points).detach()
    rows = torch.arange(3)
    gap = logits[rows, i] - logits[rows, (i + 1) % 10]
    assert gap.abs().max() < 1e-2
