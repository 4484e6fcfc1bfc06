"""Surfaces on which one ingredient of a search makes the difference."""

import math

import pytest
import torch

from curvdetect.geometry import (
    convex_combinations,
    find_boundary,
    find_path_in_region,
    fooling_rate,
    label_changes,
    nearest_classes,
    random_direction_robustness,
    step_to_boundary,
)
from curvdetect.geometry._crossing import Segment, root
from curvdetect.geometry._eigen import _orthogonal_part
from curvdetect.geometry._topology import _aside

DOUBLE = torch.float64


def tensor(*rows):
    return torch.tensor(rows, dtype=DOUBLE)


def ellipse(x):
    return 1 - x[:, 0] ** 2 / 4 - x[:, 1] ** 2


def test_the_last_step_leads_to_the_foot_of_the_perpendicular():
    """From where the steps began: along one gradient, and not along several."""
    z = tensor([1.557, 1.615], [2.428, 1.731], [0.727, 2.56])
    found = step_to_boundary(ellipse, tensor([0.2, 0.1]).expand(3, 2), z, tol=0.3)
    assert found.found.all()
    way, g = found.points - z, found.gradient
    across = way[:, 0] * g[:, 1] - way[:, 1] * g[:, 0]
    sine = across / way.norm(dim=1) / g.norm(dim=1)
    torch.testing.assert_close(sine, torch.zeros(3, dtype=DOUBLE))


@pytest.mark.parametrize("aside", [0.05, 0.1, 0.2, 0.3])
def test_many_projections_come_to_rest_at_an_edge(aside):
    """The edge of a wedge is nearest; full steps jump from one face to the other."""
    edge, slope = tensor([0.0, 1.0]), math.radians(65)
    faces = tensor([math.cos(slope), math.sin(slope)])
    faces = torch.cat([faces, faces * tensor([-1.0, 1.0])])
    outside = lambda x: ((edge - x) @ faces.T).amax(1)
    x = tensor([aside, 0.0])
    found = find_boundary(outside, x, n_projections=20)
    assert float(found.distances) == pytest.approx(float((edge - x).norm()), rel=0.02)


def test_a_newton_step_costs_a_pass_each_way():
    """Of 1 - |x|^2, from a radius of ten: steps halve it, r -> (r + 1 / r) / 2."""
    calls = []

    def circle(x):
        calls.append(len(x))
        return 1 - x.square().sum(1)

    x, z, tol = tensor([18.0, 24.0]), tensor([6.0, 8.0]), 0.001
    radius, n_steps = 10.0, 0
    while abs(1 - radius**2) / (2 * radius) > tol * (30 - radius):
        radius, n_steps = (radius + 1 / radius) / 2, n_steps + 1
    assert n_steps == 5  # as many as there may be
    found = step_to_boundary(circle, x, z, tol=tol)
    assert float(found.distances) == pytest.approx(29, rel=1e-4)
    # The gradient at z, one after each step, and the value after the last step; at
    # the image nothing is asked.
    assert len(calls) == 1 + n_steps + 1


@pytest.mark.parametrize(
    ("beyond", "end", "value"),
    [
        (lambda t: 0.3 * (1.2 - t), 1.0, 0.06),  # flatter: less is left than before
        (lambda t: 0.05 + 2 * (t - 0.95), 0.9, 0.1),  # it rises: more would be
    ],
    ids=["flatter", "rising"],
)
def test_a_last_step_across_a_kink_is_taken_if_less_is_left(beyond, end, value):
    """Of 1 - t, from t = 0.9; the kink is on the way to 1."""
    margin = lambda x: torch.maximum(1 - x[:, 0], beyond(x[:, 0]))
    found = step_to_boundary(margin, tensor([0.0, 0.0]), tensor([0.9, 0.0]), tol=0.12)
    assert found.found.tolist() == [True]
    torch.testing.assert_close(found.points, tensor([end, 0.0]))
    torch.testing.assert_close(found.value, tensor(value))
    torch.testing.assert_close(found.distances, tensor(end))


def test_far_boundaries_of_even_margins_are_not_searched_again():
    """Three values on the way tell that F falls evenly."""
    calls = []

    def plane(x):
        calls.append(len(x))
        return 1 - x[:, 0]

    found = find_boundary(plane, tensor([0.01, 0.0]))
    torch.testing.assert_close(found.distances, torch.tensor([0.99], dtype=DOUBLE))
    assert len(calls) <= 1 + 2 + 3 + 3


@pytest.mark.parametrize("power", [9, 31])
def test_an_end_that_stays_counts_half(power):
    """Of t^p - c, regula falsi alone moves one end only, at a linear rate."""
    n_calls = 0

    def margin(x):
        nonlocal n_calls
        n_calls += 1
        return 0.1 - x[:, 0] ** power

    near, far = tensor([0.0, 0.0]), tensor([1.0, 0.0])
    ends = Segment(near, margin(near), far, margin(far))
    n_calls = 0
    points, value = root(margin, ends, 1e-10, None)
    assert float(points[0, 0]) == pytest.approx(0.1 ** (1 / power), rel=1e-9)
    assert n_calls <= 15


def test_what_stands_at_its_bound_is_left_out_of_a_step():
    """10.5 - 10 x - y at (1, 0) in [0, 1]^2: x cannot grow, y = 1/2 is the way."""
    margin = lambda x: 0.01 * (10.5 - 10 * x[:, 0] - x[:, 1])
    found = find_boundary(
        margin, tensor([1.0, 0.0]), n_projections=0, bounds=(0.0, 1.0)
    )
    torch.testing.assert_close(found.points, tensor([1.0, 0.5]), rtol=1e-4, atol=1e-4)
    below = lambda x: 0.01 * (0.5 + 10 * x[:, 0] - x[:, 1])
    found = find_boundary(below, tensor([0.0, 0.0]), n_projections=0, bounds=(0, 1))
    torch.testing.assert_close(found.points, tensor([0.0, 0.5]), rtol=1e-4, atol=1e-4)


def test_the_nearest_class_may_have_a_small_logit():
    """Class j is a plane at distance d_j; the nearest has the tenth largest logit."""
    slopes = tensor([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 100.0, 1000.0])[0]
    at_origin = -torch.arange(1, 12, dtype=DOUBLE)
    logits = lambda x: torch.cat([0 * x[:, :1], at_origin + slopes * x[:, :1]], dim=1)
    near = nearest_classes(logits, tensor([0.0, 0.0]), 1)
    assert near.pairs.classes.tolist() == [[10]]
    torch.testing.assert_close(near.distances, tensor([0.1]))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_vectors_nearly_in_a_span_are_made_orthogonal_twice(dtype):
    """What one projection leaves of them is rounding, a part of it along the span."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.linalg.qr(torch.randn(30, 30, dtype=DOUBLE, generator=generator))[0]
    basis, aside, eps = whole[:10].to(dtype), whole[10], torch.finfo(dtype).eps
    share = 30 * eps
    vector = (whole[:10].sum(0) / 10**0.5 + share * aside).to(dtype)
    found, left = _orthogonal_part(vector[None], basis[None])
    assert float((basis @ found[0]).abs().max()) < 10 * eps
    assert float(found.norm()) == pytest.approx(1, abs=10 * eps)
    assert 0.3 * share < float(left) < 3 * share


def test_the_search_for_a_way_around_begins_at_right_angles():
    chords = tensor([3.0, 0.0, 4.0], [0.0, 0.1, 0.0])
    aside, lengths = _aside(chords), chords.norm(dim=1)
    torch.testing.assert_close((aside * chords).sum(1), torch.zeros(2, dtype=DOUBLE))
    assert (aside.norm(dim=1) > 0).all()
    assert (aside.norm(dim=1) < 0.05 * lengths).all()  # it is a small detour
    assert _aside(tensor([2.0])).tolist() == [[0.0]]  # on a line there is none


@pytest.mark.parametrize(
    "measure",
    [
        lambda f, x: fooling_rate(f, x, x[:1]),
        lambda f, x: label_changes(f, x, x[:1], norm=1.0),
        lambda f, x: find_path_in_region(f, x, x.flip(0)).relative_length,
        lambda f, x: convex_combinations(f, x, k=2, n_draws=4),
        lambda f, x: random_direction_robustness(f, x, x[:1], max_norm=1.0),
    ],
    ids=["fooling", "label", "path", "convex", "random"],
)
def test_what_needs_no_gradient_records_none(measure):
    """Else the activations of a network would pile up."""
    recorded = []

    def logits(x):
        f = torch.stack([2 + x.sum(1), 0 * x[:, 0]], dim=1)
        recorded.append(f.requires_grad)
        return f

    measure(logits, tensor([1.0, 0.0], [0.0, 1.0]).requires_grad_())
    assert recorded
    assert not any(recorded)
