"""Steps along the gradient, against linear networks where all is known."""

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import TorchModel
from curvdetect.attacks import GradientStepsAttack, curriculum, shortest_budgets


@pytest.fixture
def linear():
    """Two classes; the margin is w x + 0.3."""
    network = nn.Linear(4, 2).double()
    with torch.no_grad():
        network.weight.copy_(
            torch.tensor([[0.5, -1.0, 2.0, 0.0], [0, 0, 0, 0]]).double()
        )
        network.bias.copy_(torch.tensor([0.3, 0.0]).double())
    return TorchModel(network.eval(), input_shape=(4,), bounds=None)


X = torch.full((3, 4), 0.5, dtype=torch.float64)
LABEL = torch.zeros(3, dtype=torch.int64)
W = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 10])
def test_l2_goes_straight_to_a_plane(linear, steps):
    attack = GradientStepsAttack(linear, budget=0.7, norm="l2", steps=steps)
    change = attack(X, LABEL) - X
    expected = -0.7 * W / W.norm()
    # Several begin somewhere within the budget, and end near the same point.
    assert (change - expected).norm(dim=1).max() < (0.25 if steps > 1 else 1e-12)


def test_linf_changes_each_value_by_the_budget(linear):
    change = GradientStepsAttack(linear, budget=0.1)(X, LABEL) - X
    torch.testing.assert_close(change, (-0.1 * W.sign()).expand(3, -1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 5])
def test_stays_within_budget_and_bounds(model, images, norm, steps):
    x, y = torch.from_numpy(images[0]), torch.from_numpy(images[1]).long()
    found = GradientStepsAttack(model, budget=0.3, norm=norm, steps=steps)(x, y)
    change = (found - x).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert size.max() <= 0.3 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1


def test_one_step_is_torchattacks_fgsm(model, images):
    torchattacks = pytest.importorskip("torchattacks")
    x, y = torch.from_numpy(images[0]), torch.from_numpy(images[1]).long()
    theirs = torchattacks.FGSM(model.as_module(), eps=0.1)(x, y)
    ours = GradientStepsAttack(model, budget=0.1)(x, y)
    # Where the gradient is rounding alone, its sign is anybody's.
    assert ((ours - theirs).abs() < 1e-6).double().mean() > 0.999


def test_more_steps_fool_more(model, images):
    x, y = torch.from_numpy(images[0]), torch.from_numpy(images[1]).long()
    fooled = [
        (
            model.predict(GradientStepsAttack(model, budget=0.05, steps=n)(x, y))
            != y.numpy()
        ).mean()
        for n in (1, 10)
    ]
    assert fooled[1] > fooled[0]


def test_the_network_is_as_it_was(lenet, images):
    lenet.train()
    model = TorchModel(lenet.eval(), input_shape=(1, 28, 28))
    before = {k: v.clone() for k, v in lenet.state_dict().items()}
    state = torch.get_rng_state()
    x, y = torch.from_numpy(images[0][:4]), torch.from_numpy(images[1][:4]).long()
    GradientStepsAttack(model, budget=0.1, steps=1)(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in lenet.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in lenet.parameters())


@pytest.mark.parametrize(
    "wrong", [{"budget": 0}, {"budget": 1, "norm": "l1"}, {"budget": 1, "steps": 0}]
)
def test_refuses_wrong_parameters(linear, wrong):
    name = list(wrong)[-1]
    with pytest.raises(ValueError, match=f"{name} must be"):
        GradientStepsAttack(linear, **wrong)


def test_shortest_budgets_of_a_plane(linear):
    """|F| / ||w||_2 in L2, |F| / ||w||_1 for each value."""
    margin = float(X[0] @ W + 0.3)
    way = -margin * W / W.square().sum()
    found = shortest_budgets(way.expand(3, -1))
    assert found["l2"] == pytest.approx(margin / float(W.norm()))
    assert found["linf"] == pytest.approx(margin / float(W.abs().sum()))


@pytest.mark.parametrize(("n_values", "rung"), [(784, 2), (3 * 224 * 224, 8)])
@pytest.mark.parametrize("low", [1e-9, 0.001, 0.1, 5.0])
def test_the_ladder_goes_by_a_factor_to_the_largest_budget(model, low, n_values, rung):
    given = {"mine": lambda x, y: x}
    lessons = curriculum(model, n_values, {"linf": low, "l2": low}, given)
    budgets = sorted({v.budget for v in lessons if "linf" in v.name})
    assert budgets[-1] == pytest.approx(64 / 255)
    ratios = np.divide(budgets[1:], budgets[:-1])
    assert len(budgets) >= 2
    assert ratios.min() > rung**0.5 * 0.9
    assert ratios.max() < rung**1.5 * 1.05
    assert (lessons[-1].name, lessons[-1].kind) == ("mine", "given")
    assert len({lesson.name for lesson in lessons}) == len(lessons)
