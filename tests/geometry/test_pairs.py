"""Several classes of each point: rows and back, and margins to first order."""

import pytest
import torch

from curvdetect.geometry import (
    BoundaryPoints,
    Pairs,
    PairwiseMargin,
    find_boundary,
    linearise,
    margin_value_and_gradient,
    nearest_classes,
    step_to_boundary,
)
from modules import SmoothNet


@pytest.fixture
def module():
    torch.manual_seed(0)
    return SmoothNet()


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 6, dtype=torch.float64, generator=generator)


def test_pairs_become_rows_and_back(module, x):
    predicted = torch.tensor([0, 1, 2, 0, 1])
    classes = torch.tensor([[1, 2], [2, 0], [0, 1], [2, 1], [0, 2]])
    pairs = Pairs(predicted, classes)
    values = pairs.by_point(pairs.margin(module)(pairs.rows(x)))
    for i in range(5):
        for j in range(2):
            f = module(x[i : i + 1])[0]
            expected = f[predicted[i]] - f[classes[i, j]]
            torch.testing.assert_close(values[i, j], expected)
    assert pairs.by_point(pairs.rows(x)).shape == (5, 2, 6)
    columns = torch.tensor([[1], [0], [1], [0], [1]])
    assert pairs.select(columns).classes.flatten().tolist() == [2, 2, 1, 2, 2]
    assert pairs.take(torch.tensor([3, 0])).classes.tolist() == [[2, 1], [1, 2]]
    assert pairs.take(predicted == 0).predicted.tolist() == [0, 0]


def test_margins_of_the_largest_logits_or_of_given_pairs(module, x):
    around = linearise(module, x, batch_size=2)
    f = module(x).detach()
    order = f.argsort(dim=1, descending=True)
    torch.testing.assert_close(around.logits, f)
    assert (around.pairs.predicted == order[:, 0]).all()
    assert (around.pairs.classes == order[:, 1:]).all()
    value, gradient = margin_value_and_gradient(
        around.pairs.margin(module), around.pairs.rows(x)
    )
    torch.testing.assert_close(around.value, around.pairs.by_point(value))
    torch.testing.assert_close(around.gradient, around.pairs.by_point(gradient))
    torch.testing.assert_close(around.slope, around.gradient.norm(dim=2))
    some = linearise(module, x, n_candidates=1)
    assert (some.pairs.classes == order[:, 1:2]).all()
    again = linearise(module, x, pairs=some.pairs)
    torch.testing.assert_close(again.gradient, around.gradient[:, :1])


def test_a_linear_margin_is_what_its_linearisation_says(x):
    weights = torch.randn(6, 4, dtype=torch.float64)
    logits = lambda x: x @ weights
    around = linearise(logits, x)
    at_foot = around.pairs.margin(logits)(around.pairs.rows(x) + around.step())
    torch.testing.assert_close(at_foot, torch.zeros_like(at_foot))
    torch.testing.assert_close(around.step().norm(dim=1), around.distances.flatten())


def test_a_linearisation_in_parts(module, x):
    around = linearise(module, x)
    columns = torch.tensor([[1, 0]] * 5)
    swapped = around.select(columns)
    for name in ("value", "gradient", "slope", "distances"):
        whole, part = getattr(around, name), getattr(swapped, name)
        torch.testing.assert_close(part, whole.flip(1))
    first, second = around.select(columns[:, 1:]), around.select(columns[:, :1])
    joined = first.joined(second)
    assert (joined.pairs.classes == around.pairs.classes).all()
    torch.testing.assert_close(joined.gradient, around.gradient)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(around.take(some).value, around.value[some])
    torch.testing.assert_close(around.take(some).logits, around.logits[some])


def test_the_nearest_comes_first_and_what_has_no_gradient_last():
    def logits(x):
        return torch.stack([4 + 0 * x[:, 0], 4 + 0 * x[:, 0], 3 * x[:, 0], x[:, 1]], 1)

    x = torch.tensor([[1.0, 3.9], [1.3, 3.0]])
    around = linearise(logits, x, label=torch.tensor([0, 0])).nearest_first()
    assert around.pairs.classes.tolist() == [[3, 2, 1], [2, 3, 1]]
    assert around.distances[:, 2].isnan().all()
    assert (around.step().reshape(2, 3, 2)[:, 2] == 0).all()
    nearest = nearest_classes(logits, x, 1, label=torch.tensor([0, 0]))
    assert nearest.pairs.classes.tolist() == [[3], [2]]


def test_classes_of_equal_distance_keep_their_order():
    """So many that sorting alone would mix them up."""
    logits = lambda x: torch.cat([x[:, :1], 0 * x[:, :1].expand(-1, 300)], dim=1)
    around = linearise(logits, torch.tensor([[1.0, 0.0]])).nearest_first()
    before = linearise(logits, torch.tensor([[1.0, 0.0]])).pairs.classes
    assert torch.equal(around.pairs.classes, before)


def test_contradictions_are_refused(module, x):
    pairs = linearise(module, x).pairs
    with pytest.raises(ValueError, match="pairs must not be given with"):
        linearise(module, x, pairs=pairs, n_candidates=1)
    with pytest.raises(ValueError, match="pairs must hold the classes of 2 points"):
        linearise(module, x[:2], pairs=pairs)
    with pytest.raises(ValueError, match="n_candidates must be a positive integer"):
        linearise(module, x, n_candidates=0)
    with pytest.raises(ValueError, match="label must hold one integer for each"):
        linearise(module, x, label=torch.tensor([0]))
    with pytest.raises(ValueError, match="logits must be of at least 2 classes"):
        linearise(lambda x: x[:, :1], x)


def test_no_points(module, x):
    around = nearest_classes(module, x[:0], 1)
    assert around.gradient.shape == (0, 1, 6)
    assert around.distances.shape == (0, 1)
    assert around.step().shape == (0, 6)


@pytest.mark.parametrize("n_projections", [0, 2])
def test_value_and_gradient_of_a_search(module, x, n_projections):
    predicted = module(x).argmax(1)
    margin = PairwiseMargin(module, predicted, (predicted + 1) % 3)
    found = find_boundary(margin, x, n_projections=n_projections)
    value, gradient = margin_value_and_gradient(margin, found.points)
    torch.testing.assert_close(found.value, value)
    # Taken one step before or beyond, which is not far.
    cosine = torch.cosine_similarity(found.gradient, gradient)
    assert (cosine[found.found] > 0.9).all()


def test_where_the_search_took_no_step_the_gradient_is_that_given():
    x = torch.tensor([[2.0, 0.0]])
    evaluated = torch.tensor([0.0]), torch.tensor([[-1.0, 0.0]])
    found = find_boundary(
        lambda x: 2 - x.norm(dim=1), x, n_projections=0, evaluated=evaluated
    )
    assert (found.gradient == evaluated[1]).all()
    assert found.gradient is not evaluated[1]


def test_distances_of_steps_are_from_the_image():
    circle = lambda x: 1 - x.square().sum(1)
    x, z = (
        torch.tensor([[0.3, 0.4], [0.0, 0.5]]),
        torch.tensor([[0.7, 0.9], [0.0, 0.0]]),
    )
    found = step_to_boundary(circle, x, z, tol=0.05)
    away = (found.points - x).norm(dim=1)
    torch.testing.assert_close(found.distances, away)
    torch.testing.assert_close(found.value, circle(found.points))


def test_records_are_not_changed():
    def made(n, value):
        full = lambda *shape: torch.full(shape, value)
        found = torch.zeros(n, dtype=torch.bool)
        return BoundaryPoints(full(n, 2), full(n), found, full(n), full(n, 2))

    old = made(3, 1.0)
    new = old.replaced(torch.tensor([2, 0]), made(2, 5.0))
    assert old.distances.tolist() == [1, 1, 1]
    assert new.distances.tolist() == [5, 1, 5]
    assert new.take(torch.tensor([1, 2])).points.tolist() == [[1, 1], [5, 5]]
