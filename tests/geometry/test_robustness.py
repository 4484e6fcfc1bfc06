import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curvdetect.geometry import (
    find_adversarial_perturbation,
    find_smallest_universal_perturbation,
    find_universal_perturbation,
    fooling_rate,
    random_direction_robustness,
    random_directions,
)


def half_spaces(normals, offsets):
    """Class 0 where every normal . x < offset; class j beyond the j-th plane."""

    def logits(x):
        beyond = x @ normals.T - offsets
        return torch.cat([torch.zeros_like(beyond[:, :1]), beyond], dim=1)

    return logits


def ball(radius):
    return lambda x: torch.stack([radius - x.norm(dim=1), 0 * x[:, 0]], dim=1)


def two_balls(x):
    """Class 0 outside of two balls of radius 1 at +-3 on the first axis."""
    centre = torch.zeros_like(x)
    centre[:, 0] = 3
    inside = [1 - (x - c).norm(dim=1) for c in (centre, -centre)]
    return torch.stack([0 * x[:, 0], *inside], dim=1)


def some_seed(seed=0):
    return torch.Generator().manual_seed(seed)


# Adversarial perturbations (equation 1) -----------------------------


@given(seed=st.integers(0, 10**6))
def test_distance_to_the_nearest_of_several_planes(seed):
    generator = some_seed(seed)
    normals = torch.randn(6, 8, dtype=torch.float64, generator=generator)
    offsets = 1 + torch.rand(6, dtype=torch.float64, generator=generator)
    x = 0.1 * torch.randn(5, 8, dtype=torch.float64, generator=generator)
    logits = half_spaces(normals, offsets)
    # between two of the others there is no boundary of class 0
    expected = ((offsets - x @ normals.T) / normals.norm(dim=1)).amin(1)
    found = find_adversarial_perturbation(logits, x, n_boundaries=6)
    inside = expected > 0
    torch.testing.assert_close(found.norms[inside], expected[inside], rtol=1e-6, atol=0)
    assert bool(found.found.all())


def test_distance_to_spheres():
    x = torch.tensor([[0.5, 0, 0], [0, -0.2, 0.1]], dtype=torch.float64)
    found = find_adversarial_perturbation(ball(2.0), x)
    expected = 2 - x.norm(dim=1)
    torch.testing.assert_close(found.norms, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        found.points.norm(dim=1), torch.full((2,), 2.0).double(), rtol=1e-4, atol=0
    )


def test_the_nearer_of_two_balls_is_found():
    x = torch.tensor([[0.5, 1.0], [-0.5, 1.0], [0.1, 0.0]], dtype=torch.float64)
    found = find_adversarial_perturbation(two_balls, x)
    assert found.other.tolist() == [1, 2, 1]
    centre = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    expected = (x - centre).norm(dim=1) - 1
    torch.testing.assert_close(found.norms, expected, rtol=1e-3, atol=0)


def test_within_bounds_the_nearest_point_of_the_box_is_found():
    """Against the exact solution of the quadratic programme, by its dual."""
    rng = np.random.default_rng(0)
    normals = torch.from_numpy(rng.normal(size=(1, 20)))
    x = torch.from_numpy(rng.uniform(size=(6, 20)))
    offset = (x @ normals.T).amax() + 1.0
    logits = half_spaces(normals, offset)
    found = find_adversarial_perturbation(logits, x, bounds=(0, 1))
    for row in range(6):
        g, start = normals[0].numpy(), x[row].numpy()
        multipliers = np.linspace(0, 5, 200_001)
        reached = np.array(
            [g @ np.clip(start + m * g, 0, 1) for m in multipliers[::200]]
        )
        m = np.interp(float(offset), reached, multipliers[::200])
        expected = np.linalg.norm(np.clip(start + m * g, 0, 1) - start)
        assert float(found.norms[row]) == pytest.approx(expected, rel=1e-2)
    assert 0 <= float(found.points.min()) <= float(found.points.max()) <= 1


def test_no_boundary_is_a_value():
    logits = lambda x: torch.stack([1 + x.square().sum(1), 0 * x[:, 0]], dim=1)
    found = find_adversarial_perturbation(logits, torch.ones(2, 3))
    assert found.norms.tolist() == [math.inf] * 2
    assert not found.found.any()
    torch.testing.assert_close(found.points, torch.ones(2, 3))


def test_a_label_to_get_away_from():
    x = torch.tensor([[2.5, 0.0]], dtype=torch.float64)  # predicted as class 1
    back = find_adversarial_perturbation(two_balls, x)
    assert float(back.norms) == pytest.approx(0.5, rel=1e-3)
    there = find_adversarial_perturbation(two_balls, x, label=torch.tensor([2]))
    assert float(there.norms) == 0  # it has another class already
    assert bool(there.found)
    torch.testing.assert_close(there.points, x)


def test_it_is_as_good_as_deepfool(model, images):
    """torchattacks' own, on the same images within the same bounds."""
    torchattacks = pytest.importorskip("torchattacks")
    x, y = torch.from_numpy(images[0][:20]), torch.from_numpy(images[1][:20])
    right = torch.from_numpy(model.predict(images[0][:20])) == y
    x, y = x[right], y[right]
    with model.evaluating():
        ours = find_adversarial_perturbation(model.logits, x, bounds=(0, 1))
    theirs = torchattacks.DeepFool(model.as_module())(x, y).detach()
    fooled = torch.from_numpy(model.predict(theirs)) != y
    norms = (theirs - x).flatten(1).norm(dim=1)
    assert int(fooled.sum()) >= 5
    assert float(ours.norms[fooled].median()) <= 1.02 * float(norms[fooled].median())
    across = (x + 1.01 * (ours.points - x)).clamp(0, 1)
    assert float((torch.from_numpy(model.predict(across)) != y).double().mean()) > 0.9


# Random directions (equation 2) -------------------------------------


def test_random_directions_to_a_half_space_have_the_known_distribution():
    """alpha = distance / |v_1|, and v_1 squared has a Beta(1/2, (d - 1)/2) law."""
    d, distance = 50, 0.7
    normal = torch.zeros(1, d, dtype=torch.float64)
    normal[0, 0] = 1
    logits = half_spaces(normal, torch.tensor([distance], dtype=torch.float64))
    v = random_directions(800, (d,), generator=some_seed(), dtype=torch.float64)
    x = torch.zeros(1, d, dtype=torch.float64)
    found = random_direction_robustness(logits, x, v, max_norm=1e3, n_steps=2000)
    expected = distance / v[:, 0].abs()
    seen = expected < 1e3
    assert torch.equal(found[0].isfinite(), seen)
    torch.testing.assert_close(found[0, seen], expected[seen], rtol=0, atol=1e-3)
    beta = stats.beta(0.5, (d - 1) / 2)
    test = stats.kstest((distance / found[0]).square().numpy(), beta.cdf)
    assert test.pvalue > 0.01


@pytest.mark.parametrize("max_norm", [1.0, 28.0, 1e4])
@pytest.mark.parametrize("distance", [1e-7, 0.01, 0.0153, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_directions_are_exact_relative_to_the_result(distance, max_norm, dtype):
    logits = lambda x: torch.stack([distance - x[:, 0], 0 * x[:, 0]], dim=1)
    x = torch.zeros(1, 2, dtype=dtype)
    v = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]], dtype=dtype)
    found = random_direction_robustness(logits, x, v, max_norm=max_norm)
    expected = torch.tensor([[distance, distance, distance / 0.6]], dtype=dtype)
    expected = expected.where(expected <= max_norm, torch.inf)
    torch.testing.assert_close(found, expected, rtol=1.1e-3, atol=0)
    assert bool((found >= expected * (1 - 1e-6)).all())


def test_random_directions_from_a_point_on_the_boundary():
    logits = lambda x: torch.stack([-x[:, 0], 0 * x[:, 0]], dim=1)
    v = torch.tensor([[1.0, 0.0]])
    found = random_direction_robustness(logits, torch.zeros(1, 2), v, max_norm=28.0)
    assert 0 <= float(found) < 1e-15


def test_random_directions_take_the_nearer_side_and_bounds():
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    x = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    found = random_direction_robustness(two_balls, x, v, max_norm=2.0)
    assert float(found[0, 0]) == pytest.approx(1.0, rel=1e-2)  # backwards: the left one
    assert float(found[0, 1]) == math.inf


def test_random_directions_do_not_depend_on_the_batch_size_or_on_other_rows():
    v = random_directions(7, (3,), generator=some_seed(), dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    together = random_direction_robustness(two_balls, x, v, max_norm=20)
    for batch_size in (1, 5):
        part = random_direction_robustness(
            two_balls, x[1:3], v, max_norm=20, batch_size=batch_size
        )
        torch.testing.assert_close(part, together[1:3])


# Universal perturbations (equation 3) -------------------------------


@pytest.mark.parametrize("p", [2, math.inf])
def test_smallest_universal_perturbation_of_a_half_space(p):
    """All points at distance 1 or less from one plane: norm 1, in L-infinity 1/4."""
    d = 16
    normal = torch.full((1, d), 0.25, dtype=torch.float64)  # a unit vector
    logits = half_spaces(normal, torch.tensor([1.0], dtype=torch.float64))
    x = torch.randn(200, d, dtype=torch.float64, generator=some_seed(3))
    x = x - (x @ normal.T) @ normal  # parallel to the plane: all at distance 1
    found = find_smallest_universal_perturbation(
        logits, x[:100], x[100:], rate=0.9, first_norm=0.3, p=p, generator=some_seed()
    )
    expected = 1.0 if p == 2 else 0.25
    assert found.norm == pytest.approx(expected, rel=0.1)
    assert found.rate >= 0.9
    norm = float(torch.linalg.vector_norm(found.perturbation, ord=p))
    assert norm <= found.norm * (1 + 1e-9)


@pytest.mark.parametrize("first_norm", [1e-4, 1.0, 3e4])
def test_a_first_norm_of_another_scale(first_norm):
    logits = lambda x: torch.stack([1 - x[:, 0], 0 * x[:, 0]], dim=1)
    found = find_smallest_universal_perturbation(
        logits,
        torch.zeros(4, 1).double(),
        torch.zeros(4, 1).double(),
        first_norm=first_norm,
        n_steps=20,
        n_bisections=8,
    )
    assert found.norm == pytest.approx(1.0, rel=5e-3)


def test_a_first_norm_far_too_large_is_told():
    logits = lambda x: torch.stack([1e-9 - x[:, 0], 0 * x[:, 0]], dim=1)
    x = torch.zeros(4, 1).double()
    with pytest.warns(UserWarning, match="of first_norm=1; .* Lower first_norm"):
        find_smallest_universal_perturbation(logits, x, x, n_steps=5, n_bisections=1)


def test_steps_that_cancel_leave_the_direction_as_it_is():
    """Nine steps back undo one: nothing is divided by their length."""
    logits = lambda x: torch.stack([1 - x.abs().sum(1), 0 * x[:, 0]], dim=1)
    x = torch.tensor([[0.5], [-0.5]]).double()
    v = find_universal_perturbation(logits, x, norm=0.1, n_steps=50)
    assert float(v.abs()) == pytest.approx(0.1)


def test_a_larger_norm_fools_more(model, images):
    x = torch.from_numpy(images[0])
    rates = []
    with model.evaluating():
        for norm in (0.5, 4.0):
            v = find_universal_perturbation(
                model.logits,
                x[:20],
                norm=norm,
                n_steps=60,
                batch_size=20,
                generator=some_seed(),
            )
            assert float(v.norm()) == pytest.approx(norm, rel=1e-5)
            rates.append(float(fooling_rate(model.logits, x[20:], v[None])))
        random = 4 * random_directions(20, x.shape[1:], generator=some_seed())
        of_random = float(fooling_rate(model.logits, x[20:], random).mean())
    assert rates[0] < rates[1]
    assert rates[1] > 0.2 + of_random


@pytest.mark.parametrize("first_norm", [0.01, 0.9, 40.0])
def test_the_first_norm_does_not_matter(first_norm):
    logits = half_spaces(torch.tensor([[0.6, 0.8]]), torch.tensor([1.0]))
    x = torch.zeros(20, 2)
    found = find_smallest_universal_perturbation(
        logits, x, x, first_norm=first_norm, n_bisections=6, generator=some_seed()
    )
    assert found.norm == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("p", [2, math.inf])
def test_in_other_units_it_is_the_same_perturbation(p):
    """All steps are parts of the norm."""
    logits = ball(1.0)
    x = 0.3 * torch.randn(20, 3, dtype=torch.float64, generator=some_seed(1))
    start = torch.tensor([1.0, -0.5, 0.2]).double()
    settings = {"p": p, "n_steps": 30}
    v, of_larger = (
        find_universal_perturbation(
            lambda x, unit=unit: logits(x / unit),
            unit * x,
            norm=0.4 * unit,
            initial=start,
            generator=some_seed(),
            **settings,
        )
        for unit in (1.0, 1024.0)
    )
    torch.testing.assert_close(of_larger, 1024 * v)


def test_steps_are_taken_where_the_points_have_moved_to():
    """From x = (0.5, 0) and beside it, the way out of the unit disc is to the right."""
    x, start = torch.tensor([[0.5, 0.0]]).expand(8, 2), torch.tensor([-1.0, 0.1])
    v = find_universal_perturbation(ball(1.0), x, norm=0.3, n_steps=200, initial=start)
    torch.testing.assert_close(v, torch.tensor([0.3, 0.0]), rtol=0, atol=0.03)


def test_learning_on_when_all_points_are_across():
    logits = half_spaces(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]))
    x, start = torch.zeros(8, 2), torch.tensor([-1.0, 1.0])
    v = find_universal_perturbation(logits, x, norm=2.0, n_steps=800, initial=start)
    assert float(v.norm()) == pytest.approx(2)
    assert float(v[0]) > 1


def test_a_broken_perturbation_fools_nobody():
    logits = half_spaces(torch.tensor([[1.0, 0.0]]), torch.tensor([-1.0]))
    v = torch.full((1, 2), math.nan)
    assert float(fooling_rate(logits, torch.zeros(3, 2), v)) == 0


def test_an_unreachable_rate_is_a_value():
    logits = lambda x: torch.stack([1 + x.square().sum(1), 0 * x[:, 0]], dim=1)
    x = torch.randn(4, 2)
    found = find_smallest_universal_perturbation(logits, x, x, n_steps=2)
    assert found.norm == math.inf
    assert found.rate == 0


def test_fooling_rate_keeps_bounds():
    x = torch.tensor([[0.5, 0.5], [0.9, 0.5]])
    logits = lambda x: torch.stack([1.2 - x[:, 0], 0 * x[:, 0]], dim=1)
    v = torch.tensor([[1.0, 0.0]])
    assert float(fooling_rate(logits, x, v)) == 1
    assert float(fooling_rate(logits, x, v, bounds=(0, 1))) == 0
    assert float(fooling_rate(logits, x, v, batch_size=1)) == 1


# Errors -------------------------------------------------------------


def test_labels_of_any_integer_type_are_taken_and_others_refused():
    x = torch.tensor([[0.5, 0.1]], dtype=torch.float64)
    label = torch.tensor([0], dtype=torch.uint8)
    found = find_adversarial_perturbation(ball(2.0), x, label=label)
    assert bool(found.found)
    for bad, message in (
        (torch.tensor([2]), "label must be from 0 to 1; got 2 to 2"),
        (torch.tensor([0, 1]), "one integer for each of the 1 rows; got shape"),
        (
            torch.tensor([0.0]),
            "one integer for each of the 1 rows; got .*torch.float32",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            find_adversarial_perturbation(ball(2.0), x, label=bad)


def test_bad_parameters():
    x = torch.zeros(2, 3)
    for bounds in ((1, 0), (0, 0), 1):
        with pytest.raises(ValueError, match="bounds must be a pair .low, high. with"):
            find_adversarial_perturbation(ball(1), x, bounds=bounds)
    with pytest.raises(ValueError, match="n_projections must be an integer of at leas"):
        find_adversarial_perturbation(ball(1), x, n_projections=-1)
    with pytest.raises(ValueError, match="at least 2 classes; got 1"):
        find_adversarial_perturbation(lambda x: x[:, :1], x)
    with pytest.raises(ValueError, match="v must have shape .m, .input_shape."):
        random_direction_robustness(ball(1), x, torch.ones(2, 4), max_norm=1)
    with pytest.raises(ValueError, match="initial must not be all zero"):
        find_universal_perturbation(ball(1), x, norm=1, initial=torch.zeros(3))
    with pytest.raises(ValueError, match="initial must have shape"):
        find_universal_perturbation(ball(1), x, norm=1, initial=torch.ones(1))
    with pytest.raises(ValueError, match="x must hold at least one point"):
        find_universal_perturbation(ball(1), x[:0], norm=1)
    with pytest.raises(ValueError, match="held_out must hold at least one point"):
        find_smallest_universal_perturbation(ball(1), x, x[:0])
    with pytest.raises(ValueError, match="n_boundaries must be a positive integer"):
        find_adversarial_perturbation(ball(1), x, n_boundaries=0)
    with pytest.raises(ValueError, match="max_norm must be a positive finite number"):
        random_direction_robustness(ball(1), x, x, max_norm=math.inf)
    with pytest.raises(ValueError, match="p must be one of .2, inf.; got 1"):
        find_universal_perturbation(ball(1), x, norm=1, p=1)
    with pytest.raises(ValueError, match="norm must be a positive finite number"):
        find_universal_perturbation(ball(1), x, norm=-1)
    for rate in (0, 1.01, 90):
        with pytest.raises(ValueError, match=f"above 0 and at most 1; got {rate}"):
            find_smallest_universal_perturbation(ball(1), x, x, rate=rate)
