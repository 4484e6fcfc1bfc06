import math

import numpy as np
import pytest
import torch
from scipy import integrate

from curvdetect.geometry import convex_combinations, find_path_in_region


def classifier(margin):
    """Class 0 where the margin is positive."""
    return lambda x: torch.stack([margin(x), 0 * x[:, 0]], dim=1)


RING = classifier(lambda x: 1 - (x.norm(dim=1) - 2) ** 2)
BALL = classifier(lambda x: 2 - x.norm(dim=1))


def two_discs(x):
    """Class 0 in two discs of radius 1 around +-2 on the first axis."""
    shift = torch.zeros_like(x)
    shift[:, 0] = 2
    nearest = torch.minimum((x - shift).norm(dim=1), (x + shift).norm(dim=1))
    return torch.stack([1 - nearest, 0 * nearest], dim=1)


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# Paths --------------------------------------------------------------


def test_a_straight_path_stays_straight():
    a, b = points([1.0, 1.0, 0.5]), points([-1.5, 0.2, 1.0])
    path = find_path_in_region(BALL, a, b)
    assert path.found.tolist() == path.straight.tolist() == [True]
    assert float(path.relative_length) == 1
    torch.testing.assert_close(path.points, torch.stack([a, b], dim=1))


@pytest.mark.parametrize("d", [2, 3, 20])
def test_a_path_around_a_hole_is_found(d):
    a, b = torch.zeros(2, d).double(), torch.zeros(2, d).double()
    a[:, 0], b[:, 0] = 2.0, -2.0
    a[0, 1], a[1, 1], b[1, 1] = 0.3, -0.5, 0.4
    path = find_path_in_region(RING, a, b)
    assert path.found.tolist() == [True, True]
    assert path.straight.tolist() == [False, False]
    # No shorter than along the tangents to the hole, no longer than a detour.
    assert bool((path.relative_length > 1.1).all())
    assert bool((path.relative_length < 1.8).all())
    torch.testing.assert_close(path.points[:, 0], a)
    torch.testing.assert_close(path.points[:, -1], b)


def on_a_line(d, first, second):
    a, b = torch.zeros(1, d).double(), torch.zeros(1, d).double()
    a[:, 0], b[:, 0] = first, second
    return a, b


@pytest.mark.parametrize("d", [2, 3, 20])
@pytest.mark.parametrize("ends", [(2.0, -2.0), (1.5, -2.5), (2.9, -1.2)])
def test_a_path_between_opposite_points_of_a_ring(d, ends):
    """The hole is passed on one side, though both ends point through its centre."""
    a, b = on_a_line(d, *ends)
    path = find_path_in_region(RING, a, b)
    assert path.found.tolist() == [True]
    assert path.straight.tolist() == [False]
    # The shortest: two tangents to the hole, and an arc between them.
    angles = [math.acos(1 / abs(end)) for end in ends]
    shortest = sum(map(math.tan, angles)) + math.pi - sum(angles)
    relative = shortest / (ends[0] - ends[1])
    assert relative <= float(path.relative_length) < 1.3 * relative
    length = (path.points[0, 1:] - path.points[0, :-1]).norm(dim=1).sum()
    assert float(length) == pytest.approx(
        float(path.relative_length) * (ends[0] - ends[1])
    )


def test_a_square_hole_and_two_holes_in_a_row():
    square = classifier(lambda x: x.abs().amax(1) - 0.5)
    path = find_path_in_region(square, *on_a_line(2, 1.0, -1.0))
    assert path.found.tolist() == [True]
    both = lambda x: torch.minimum(
        (x - x.new_tensor([1.0, 0.0])).norm(dim=1),
        (x + x.new_tensor([1.0, 0.0])).norm(dim=1),
    )
    a, b = on_a_line(2, 2.0, -2.0)
    path = find_path_in_region(classifier(lambda x: both(x) - 0.5), a, b)
    assert path.found.tolist() == [True]


def test_on_a_line_there_is_no_way_around():
    path = find_path_in_region(RING, *on_a_line(1, 2.0, -2.0))
    assert path.found.tolist() == [False]
    assert math.isnan(path.relative_length[0])
    assert bool(path.points.isfinite().all())


def test_a_second_try_does_not_change_the_other_paths():
    a, b = points([2.0, 0.3], [2.0, 0.0]), points([-2.0, 0.0], [-2.0, 0.0])
    together = find_path_in_region(RING, a, b, n_levels=5)
    alone = find_path_in_region(RING, a[:1], b[:1], n_levels=5)
    assert together.found.tolist() == [True, True]
    torch.testing.assert_close(together.relative_length[:1], alone.relative_length)


def test_found_paths_are_inside_between_the_samples_too():
    a, b = points([2.0, 0.3]), points([-2.0, 0.0])
    path = find_path_in_region(RING, a, b)
    t = torch.linspace(0, 1, 1000, dtype=torch.float64)[:, None]
    for first, second in zip(path.points[0, :-1], path.points[0, 1:], strict=True):
        line = first + t * (second - first)
        assert bool((RING(line).argmax(1) == 0).all())


def test_between_two_components_no_path_is_found():
    a, b = points([2.0, 0.5], [2.0, 0.5]), points([-2.0, 0.5], [2.5, -0.5])
    path = find_path_in_region(two_discs, a, b)
    assert path.found.tolist() == [False, True]
    assert math.isnan(path.relative_length[0])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_midpoint_on_the_boundary(order):
    """The region is x < -1/2 and x > 0; half-way is 0, where F vanishes."""
    logits = lambda x: torch.stack([x[:, 0] * (x[:, 0] + 0.5), 0 * x[:, 0]], 1)[
        :, order
    ]
    path = find_path_in_region(logits, points([-1.0]), points([1.0]))
    assert path.found.tolist() == [False]
    assert bool(path.points.isfinite().all())


def test_a_path_from_a_point_to_itself():
    a = points([2.0, 0.3])
    path = find_path_in_region(RING, a, a)
    assert path.found.tolist() == [True]
    assert path.relative_length.tolist() == [1.0]


def test_paths_do_not_depend_on_each_other_or_on_the_batch_size():
    a = points([2.0, 0.3], [2.0, -0.4], [0.1, 2.0])
    b = points([-2.0, 0.0], [-2.0, -0.1], [0.3, -1.9])
    together = find_path_in_region(RING, a, b, n_levels=6)
    for batch_size in (1, 10):
        alone = find_path_in_region(
            RING, a[1:2], b[1:2], n_levels=6, batch_size=batch_size
        )
        torch.testing.assert_close(alone.relative_length, together.relative_length[1:2])
    none = find_path_in_region(RING, a[:0], b[:0])
    assert none.found.shape == (0,)


def test_images_of_one_class_are_connected(model, images):
    label = torch.from_numpy(model.predict(images[0]))
    rows = (label == label[0]).nonzero().squeeze(1)
    x = torch.from_numpy(images[0])[rows]
    with model.evaluating():
        path = find_path_in_region(model.logits, x[:-1], x[1:])
        assert bool(path.found.all())
        inside = model.logits(path.points.flatten(0, 1)).argmax(1)
    assert bool((inside == label[0]).all())


def test_ends_of_two_classes_are_refused():
    a, b = points([2.0, 0.0], [2.0, 0.0]), points([-2.0, 0.0], [0.0, 0.0])
    message = "same class, row by row; got classes 0 and 1 in row 1"
    with pytest.raises(ValueError, match=message):
        find_path_in_region(RING, a, b)
    with pytest.raises(ValueError, match="n_levels must be a positive integer"):
        find_path_in_region(RING, a[:1], b[:1], n_levels=0)


# Convexity ----------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_a_convex_region_holds_all_combinations(k):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 5, dtype=torch.float64, generator=generator) - 0.5
    stays = convex_combinations(BALL, x, k=k, generator=generator)
    assert stays.shape == (1000,)
    assert bool(stays.all())


def test_two_points_on_a_ring():
    """Chords of a circle of radius R that leave a hole of radius r, exactly."""
    R, r = 2.0, 1.0

    def outside(phi):  # half the angle between the two points
        height = R * np.cos(phi)
        if height >= r:
            return 1.0
        return 1 - np.sqrt(r**2 - height**2) / (R * np.sin(phi))

    expected = integrate.quad(outside, 0, np.pi / 2)[0] / (np.pi / 2)
    generator = torch.Generator().manual_seed(0)
    angle = 2 * np.pi * torch.rand(3000, dtype=torch.float64, generator=generator)
    x = R * torch.stack([angle.cos(), angle.sin()], dim=1)
    stays = convex_combinations(RING, x, k=2, n_draws=20_000, generator=generator)
    assert float(stays.double().mean()) == pytest.approx(expected, abs=0.015)


def test_two_points_of_two_discs():
    """At the centres: half of the pairs stay, of the others the ends of the way."""
    n, distance, radius = 500, 4.0, 1.0
    x = points([2.0, 0.0], [-2.0, 0.0]).repeat(n, 1)
    different = n / (2 * n - 1)
    expected = 1 - different * (1 - 2 * radius / distance)
    generator = torch.Generator().manual_seed(0)
    stays = convex_combinations(two_discs, x, k=2, n_draws=20_000, generator=generator)
    assert float(stays.double().mean()) == pytest.approx(expected, abs=0.015)


def test_points_of_other_classes_are_not_mixed_in():
    """Two half-planes are convex, each for itself."""
    logits = classifier(lambda x: x[:, 0])
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    assert bool(convex_combinations(logits, x, k=4, batch_size=7).all())


def test_classes_with_too_few_points_take_no_part():
    logits = classifier(lambda x: x[:, 0])
    x = points([1.0, 0.0], [2.0, 1.0], [3.0, -1.0], [-1.0, 0.0])
    assert bool(convex_combinations(logits, x, k=3, n_draws=50).all())
    message = "k must be at most the number of points of a class; got 4, and at most 3"
    with pytest.raises(ValueError, match=message):
        convex_combinations(logits, x, k=4)
