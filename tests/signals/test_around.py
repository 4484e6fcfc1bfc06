"""What signals share: computed once, narrowed to some rows, and with a gradient."""

import numpy as np
import pytest
import torch

from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.signals import (
    Around,
    Curvature,
    Distance,
    FirstOrder,
    Laplacian,
    Logits,
    Setup,
    joint_cost,
    measure_signals,
)
from curvdetect.study.metrics import count_passes
from modules import SmoothNet

DIRECTIONS = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 3)))[0].T


def setup(**settings):
    known = {
        "n_classes": 3,
        "input_shape": (6,),
        "n_boundaries": 2,
        "steps": (0.1,),
        "directions": DIRECTIONS,
    }
    return Setup(**{**known, **settings})


@pytest.fixture
def smooth():
    torch.manual_seed(0)
    return TorchModel(SmoothNet(), input_shape=(6,), bounds=None, batch_size=50)


@pytest.fixture
def around(smooth):
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 6)))
    with smooth.evaluating():
        yield Around(smooth, x, setup())


ALL = (Curvature(), Distance(), Laplacian(), Logits(), FirstOrder())


def resolved(around, signals=ALL):
    return [signal.resolved(around.setup) for signal in signals]


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (Curvature, [Curvature(at="input"), Curvature(step=0.3)]),
        (Distance, [Logits()]),
        (Laplacian, [Laplacian(0.3)]),
        (Logits, [Distance()]),
        (FirstOrder, [FirstOrder(1)]),
    ],
)
def test_signals_are_their_settings(make, others):
    """Copies are equal: caches and searches rely on it."""
    assert make() == make()
    assert repr(make()) == repr(make())
    for other in others:
        assert make() != other


def test_what_is_not_known_yet_costs_nothing():
    """Without the network's shape there is no number of directions."""
    for signal in (Curvature(), Distance(), Laplacian()):
        assert signal.cost(3) == 0
        assert signal.resolved(setup()).cost(3) > 0


# Once ---------------------------------------------------------------


def test_logits_and_gradients_are_taken_once(smooth, around):
    with count_passes(smooth.module) as passes:
        Logits().measure(around)
        assert (passes.forward, passes.backward) == (5, 0)
        FirstOrder(1).measure(around)
        assert (passes.forward, passes.backward) == (10, 5)
        FirstOrder(2).measure(around)  # one class more, and not the first again
        assert (passes.forward, passes.backward) == (15, 10)
        FirstOrder(2).measure(around)
        around.chosen.distances.sum()
        Logits().measure(around)
        assert (passes.forward, passes.backward) == (15, 10)


@pytest.mark.parametrize("k", [1, 2])
def test_gradients_asked_for_in_parts_are_those_of_one_call(smooth, around, k):
    parts, whole = around, Around(smooth, around.x, around.setup)
    parts.linearised(k)
    ours, theirs = parts.linearised(2), whole.linearised(2)
    assert torch.equal(ours.pairs.classes, theirs.pairs.classes)
    for name in ("value", "gradient", "logits"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_the_costs_add_up(smooth, around):
    """What all cost together is what is counted, but for the way to a boundary."""
    signals = resolved(around)
    with count_passes(smooth.module) as passes:
        measure_signals(around, signals)
    counted = passes.forward_equivalents / 5
    search = around.setup.cost_of_search()["boundary"]
    assert abs(joint_cost(signals, 3) - counted) <= search / 2
    exact = resolved(around, [Curvature(at="input"), Laplacian(), Logits()])
    fresh = Around(smooth, around.x, around.setup)
    with count_passes(smooth.module) as passes:
        measure_signals(fresh, exact)
    assert joint_cost(exact, 3) == passes.forward_equivalents / 5
    assert joint_cost(exact, 3) < sum(signal.cost(3) for signal in exact)


def test_differences_of_gradients_cost_what_they_say(smooth):
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 6)))
    with smooth.evaluating():
        around = Around(smooth, x, setup(method="gradient", at="input"))
        signals = resolved(around, [Curvature()])
        with count_passes(smooth.module) as passes:
            measure_signals(around, signals)
    assert joint_cost(signals, 3) == pytest.approx(passes.forward_equivalents / 5)


def test_a_signal_may_have_a_method_of_its_own(smooth, around):
    """And costs what that takes, whichever is the featurizer's."""
    signals = resolved(around, [Curvature(method="gradient", at="input")])
    with count_passes(smooth.module) as passes:
        measure_signals(around, signals)
    assert joint_cost(signals, 3) == pytest.approx(passes.forward_equivalents / 5)


def test_a_cheap_signal_pays_for_no_search(smooth, around):
    with count_passes(smooth.module) as passes:
        measure_signals(around, resolved(around, [Logits(), FirstOrder(1)]))
    assert passes.forward_equivalents == 5 * (1 + 2)
    assert not around.searched


# Fewer rows, fewer boundaries ---------------------------------------


@pytest.mark.parametrize("signal", ALL, ids=lambda signal: signal.name)
@pytest.mark.parametrize("before", [True, False])
def test_narrowed_to_some_rows(smooth, around, signal, before):
    """As for these images alone; what was known before costs nothing again."""
    (signal,) = resolved(around, [signal])
    rows = torch.tensor([3, 0])
    if before:
        everything = signal.measure(around)
    part = around.take(rows)
    with count_passes(smooth.module) as passes:
        values = signal.measure(part)
    alone = signal.measure(Around(smooth, around.x[rows], around.setup))
    torch.testing.assert_close(values, alone, equal_nan=True)
    if before:
        torch.testing.assert_close(values, everything[rows], equal_nan=True)
        if signal.name != "curvature":
            assert passes.forward == 0


@pytest.mark.parametrize("signal", ALL[:3], ids=lambda signal: signal.name)
@pytest.mark.parametrize("searched", [True, False])
def test_narrowed_to_some_boundaries(around, signal, searched):
    (signal,) = resolved(around, [signal])
    if searched:
        around.boundary.found.all()
    columns = torch.tensor([[1], [0], [1], [1], [0]])
    values = signal.measure_boundaries(around).squeeze(1)
    few = signal.measure_boundaries(around.select(columns)).squeeze(1)
    torch.testing.assert_close(few, values.gather(1, columns), rtol=1e-6, atol=1e-9)


class NeverThird(torch.nn.Module):
    """The second class is beyond a plane; the third has a slope, and never wins."""

    def forward(self, x):
        first = x[:, :1]
        return torch.cat([first, 0 * first, -1 - first**2], dim=1)


def test_a_boundary_that_is_not_there_is_not_found_however_curved():
    model = TorchModel(NeverThird().eval(), input_shape=(3,), bounds=None)
    x = torch.tensor([[0.5, 0.1, 0.0], [0.8, 0.3, 0.2]], dtype=torch.float64)
    with model.evaluating():
        around = Around(model, x, setup(input_shape=(3,), directions=DIRECTIONS[:, :3]))
        found = measure_signals(around, resolved(around, [Curvature(), Distance()]))
    assert found.classes.tolist() == [[1, 2], [1, 2]]
    assert found.found.tolist() == [[True, False], [True, False]]
    assert bool(found.boundaries[:, 0].isfinite().all())  # also where there is none
    torch.testing.assert_close(found.distances[:, 0], x[:, 0], rtol=1e-4, atol=0)


# With a gradient ----------------------------------------------------


@pytest.mark.parametrize("signal", [Logits(), Laplacian()])
def test_gradients_are_those_of_differences(smooth, around, signal):
    """Of the signals of which no part is held fixed."""
    (signal,) = resolved(around, [signal])
    x = around.x.clone().requires_grad_()
    values = signal.measure(around.attached(x)).nan_to_num()
    (gradient,) = torch.autograd.grad(values[:, 1].sum(), x)
    for axis in range(6):
        h = torch.zeros(6, dtype=torch.float64)
        h[axis] = 1e-5
        ahead, behind = (
            signal.measure(Around(smooth, around.x + s * h, around.setup)).nan_to_num()
            for s in (1, -1)
        )
        slope = (ahead - behind)[:, 1] / 2e-5
        torch.testing.assert_close(gradient[:, axis], slope, rtol=1e-4, atol=1e-6)


class Planes(torch.nn.Module):
    """Boundaries at the distances 1 - x and 2 - y."""

    def forward(self, x):
        return torch.stack([0 * x[:, 0], x[:, 0] - 1, 3 * x[:, 1] - 6], dim=1)


@pytest.mark.parametrize("signal", [FirstOrder(), Distance()])
def test_distances_to_planes_shrink_as_the_image_comes_nearer(signal):
    model = TorchModel(Planes().eval(), input_shape=(2,), bounds=(-9, 9))
    x = torch.tensor([[0.0, 0.5], [0.3, 1.9]], requires_grad=True)
    with model.evaluating():
        around = Around(
            model,
            x.detach(),
            setup(input_shape=(2,), directions=None, n_boundaries=2),
        )
        (signal,) = resolved(around, [signal])
        signal.measure(around)
        values = signal.measure(around.attached(x))
        nearest = values.nan_to_num(99).min(dim=1).values
        (gradient,) = torch.autograd.grad(nearest.sum(), x)
    torch.testing.assert_close(nearest, torch.tensor([1.0, 0.1]), rtol=1e-4, atol=1e-5)
    expected = torch.tensor([[-1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_values_with_a_gradient_are_those_without(smooth, around):
    for signal in resolved(around):
        plain = signal.measure(around)
        x = around.x.clone().requires_grad_()
        attached = signal.measure(around.attached(x))
        assert attached.requires_grad
        torch.testing.assert_close(attached.detach(), plain, equal_nan=True)


# First order, logits ------------------------------------------------


def test_first_order_and_logits_against_autograd(model, images):
    X = images[0]
    featurizer = CurvatureFeaturizer(model, features=["first_order", "logits"])
    F = featurizer.fit_transform(X)
    assert featurizer.cost() == 5
    with model.evaluating():
        x = torch.from_numpy(X)
        logits = model.logits(x)
        jacobian = torch.func.vmap(
            torch.func.jacrev(lambda image: model.logits(image[None])[0])
        )(x).flatten(2)
    largest = logits.topk(3, dim=1).indices
    rows = torch.arange(len(x))[:, None]
    margin = logits.max(1).values[:, None] - logits[rows, largest[:, 1:]]
    slope = (jacobian[rows, largest[:, :1]] - jacobian[rows, largest[:, 1:]]).norm(
        dim=2
    )
    expected = (margin / slope).sort(dim=1).values
    np.testing.assert_allclose(F[:, :2], expected.detach(), rtol=1e-4)
    less = logits - logits.max(1, keepdim=True).values
    np.testing.assert_allclose(F[:, 2:], less.detach(), rtol=1e-4, atol=1e-4)


def test_flat_margins_count_as_the_diagonal():
    model = TorchModel(
        torch.nn.Linear(4, 3).eval().requires_grad_(False),
        input_shape=(4,),
        bounds=(0, 2),
    )
    model.module.weight.zero_()
    model.module.bias.copy_(torch.tensor([1.0, 0.5, 0.0]))
    F = CurvatureFeaturizer(model, features=["first_order"]).fit_transform(
        np.full((2, 4), 0.5)
    )
    np.testing.assert_array_equal(F, 4.0)  # 2 times the root of 4


# Many classes -------------------------------------------------------


class ManyClasses(torch.nn.Module):
    """1,000 smooth logits of four values."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(1000, 4, generator=generator))

    def forward(self, x):
        return (x @ self.weight.T).sin() + 0.1 * x.square().sum(1, keepdim=True)


def test_a_thousand_classes_take_k_columns():
    model = TorchModel(ManyClasses().eval(), input_shape=(4,), bounds=None)
    X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    featurizer = CurvatureFeaturizer(
        model, n_boundaries=5, step=0.1, random_state=0
    ).fit(X)
    F, measured = featurizer.transform(X), featurizer.measure(X)
    assert F.shape == (20, 5)
    assert featurizer.get_feature_names_out()[0] == "curvature_nearest0"
    assert measured.classes.shape == (20, 5)
    by_class = featurizer.set_params(layout="class").transform(X)
    assert by_class.shape == (20, 1000)
    for row, classes, found, values in zip(
        by_class,
        measured.classes,
        measured.found,
        measured.boundaries[:, 0],
        strict=True,
    ):
        assert set(np.flatnonzero(~np.isnan(row))) == set(classes[found].tolist())
        np.testing.assert_array_equal(row[classes[found]], values[found])
