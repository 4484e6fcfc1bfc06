import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from curvdetect.geometry import ClassLoss, hessian_eigenvalues
from curvdetect.study.datasets import load_digits
from curvdetect.study.networks import LeNet
from curvdetect.study.training import (
    CURE,
    AdversarialTraining,
    CrossEntropy,
    cure_penalty,
    train,
)
from modules import SmoothNet


@pytest.fixture
def digits():
    X, y = load_digits()
    return X[:400], y[:400]


@pytest.fixture
def small():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def same_weights(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


# The penalty --------------------------------------------------------


def test_penalty_is_the_definition():
    """Gradients by torch.func, image by image."""
    module = SmoothNet()
    x, y = torch.rand(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = cure_penalty(module, x, y, step=0.7).detach()
    for row in range(5):

        def loss(point, label=y[row]):
            return functional.cross_entropy(module(point[None])[0], label)

        g = torch.func.grad(loss)(x[row])
        z = g.sign() / g.sign().norm()
        change = torch.func.grad(loss)(x[row] + 0.7 * z) - g
        assert float(found[row]) == pytest.approx(float(change.square().sum().detach()))


def test_penalty_of_a_quadratic_loss_is_that_of_its_hessian():
    """For l = x A x / 2 the gradients differ by h A z."""
    A = torch.tensor([[2.0, 1.0], [1.0, -3.0]], dtype=torch.float64)
    module = nn.Identity()
    loss = lambda x, y, reduction: ((x @ A) * x).sum(1) / 2
    x = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    z = (x @ A).sign() / 2**0.5
    expected = (0.5 * z @ A).square().sum()
    found = cure_penalty(module, x, torch.zeros(1).long(), step=0.5, loss=loss)
    assert float(found.detach()) == pytest.approx(float(expected))


def test_penalty_reaches_the_weights():
    """Against finite differences of one weight."""
    module = SmoothNet()
    x, y = torch.rand(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    total = lambda: cure_penalty(module, x, y, step=0.7).sum()
    total().backward()
    weight = module.layers[0].weight
    slope, h = float(weight.grad[2, 3]), 1e-6
    with torch.no_grad():
        weight[2, 3] += h
        ahead = float(total().detach())
        weight[2, 3] -= 2 * h
        behind = float(total().detach())
    assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-4)


def test_penalty_where_the_gradient_vanishes():
    module = nn.Linear(4, 3)
    nn.init.zeros_(module.weight)
    found = cure_penalty(module, torch.rand(2, 4), torch.tensor([0, 1]), step=1.0)
    assert found.tolist() == [0, 0]


def test_bad_parameters():
    with pytest.raises(ValueError, match="step must be a positive finite number"):
        cure_penalty(nn.Linear(2, 2), torch.rand(1, 2), torch.zeros(1).long(), step=0)
    with pytest.raises(ValueError, match="strength must be a positive finite number"):
        CURE(strength=-1)
    with pytest.raises(ValueError, match="warm_up must be from 0 to 1; got 2"):
        CURE(warm_up=2)
    with pytest.raises(ValueError, match="eps must be a positive finite number"):
        AdversarialTraining(eps=0)


# Training -----------------------------------------------------------


def test_training_learns_and_leaves_random_numbers_alone(digits, small):
    before = torch.random.get_rng_state()
    module = train(small, *digits, n_epochs=40, max_lr=1e-2, verbose=False)
    assert module is small
    assert not module.training
    assert torch.equal(torch.random.get_rng_state(), before)
    X, y = load_digits()
    predicted = module(torch.from_numpy(X[400:800])).argmax(1).numpy()
    assert np.mean(predicted == y[400:800]) > 0.8
    assert all(p.grad is None for p in module.parameters())


def test_the_same_seed_gives_the_same_weights(digits, small):
    twin, other = copy.deepcopy(small), copy.deepcopy(small)
    train(small, *digits, n_epochs=2, verbose=False)
    train(twin, *digits, n_epochs=2, verbose=False)
    train(other, *digits, n_epochs=2, random_state=1, verbose=False)
    assert same_weights(small, twin)
    assert not same_weights(small, other)


class Interrupted:
    """Stops in the middle of an epoch, like Ctrl-C; its name is that of plain loss."""

    def __repr__(self):
        return repr(CrossEntropy())

    def __call__(self, module, x, y, progress):
        if progress > 0.6:
            raise KeyboardInterrupt
        return CrossEntropy()(module, x, y, progress)


def test_interrupted_training_goes_on_where_it_was(digits, small, tmp_path):
    whole, checkpoint = copy.deepcopy(small), tmp_path / "training.pt"
    settings = {"n_epochs": 4, "verbose": False}
    train(whole, *digits, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(small, *digits, loss=Interrupted(), checkpoint=checkpoint, **settings)
    resumed = copy.deepcopy(small)
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()  # what counts is the file
    train(resumed, *digits, checkpoint=checkpoint, **settings)
    assert same_weights(resumed, whole)
    again = train(copy.deepcopy(small), *digits, checkpoint=checkpoint, **settings)
    assert same_weights(again, whole)
    assert list(tmp_path.iterdir()) == [checkpoint]  # nothing half written beside it


class OwnLoss:
    """Has Python's default repr, with an address."""

    def __call__(self, module, x, y, progress):
        return CrossEntropy()(module, x, y, progress)


def test_a_loss_of_ones_own_is_known_again(digits, small, tmp_path):
    settings = {"n_epochs": 1, "verbose": False}
    first, again = copy.deepcopy(small), copy.deepcopy(small)
    checkpoint = tmp_path / "training.pt"
    train(first, *digits, loss=OwnLoss(), checkpoint=checkpoint, **settings)
    assert "0x" not in torch.load(checkpoint, weights_only=True)["settings"]
    train(again, *digits, loss=OwnLoss(), checkpoint=checkpoint, **settings)
    assert same_weights(first, again)


def test_other_images_are_other_settings(digits, small, tmp_path):
    X, y = digits
    settings = {"n_epochs": 1, "checkpoint": tmp_path / "t.pt", "verbose": False}
    train(small, X, y, **settings)
    with pytest.raises(ValueError, match="must be of the same settings"):
        train(small, X[::-1].copy(), y, **settings)


def test_images_of_any_number_type(digits, small):
    X, y = digits
    settings = {"n_epochs": 1, "verbose": False}
    expected = train(copy.deepcopy(small), X, y, **settings)
    module = train(small, X.astype(np.float64), y.astype(np.uint8), **settings)
    assert next(module.parameters()).dtype == torch.float32
    assert same_weights(module, expected)


def test_a_checkpoint_of_other_settings_is_refused(digits, small, tmp_path):
    checkpoint = tmp_path / "training.pt"
    train(small, *digits, n_epochs=1, checkpoint=checkpoint, verbose=False)
    with pytest.raises(ValueError, match="must be of the same settings.*Remove"):
        train(small, *digits, n_epochs=2, checkpoint=checkpoint, verbose=False)


def test_cure_makes_the_loss_less_curved(digits):
    """By the largest eigenvalue of the loss Hessian, on other images."""
    X, y = load_digits()
    x, label = torch.from_numpy(X[400:420]), torch.from_numpy(y[400:420])
    torch.manual_seed(0)
    start = train(LeNet(image_size=8), *digits, n_epochs=15, max_lr=5e-3, verbose=False)
    largest = {}
    for loss in (CrossEntropy(), CURE(strength=1.0)):
        module = copy.deepcopy(start)
        train(module, *digits, loss=loss, n_epochs=30, verbose=False)
        found = hessian_eigenvalues(ClassLoss(module, label), x, directions=False)
        largest[repr(loss)] = float(found.values.abs().amax(1).mean())
    plain, cure = largest.values()
    assert cure < 0.5 * plain


def test_adversarial_training_resists_more(digits):
    torchattacks = pytest.importorskip("torchattacks")
    X, y = load_digits()
    x, label = torch.from_numpy(X[400:600]), torch.from_numpy(y[400:600])
    torch.manual_seed(0)
    start = train(LeNet(image_size=8), *digits, n_epochs=15, max_lr=5e-3, verbose=False)
    right = {}
    for loss in (CrossEntropy(), AdversarialTraining(eps=0.15)):
        module = copy.deepcopy(start)
        train(module, *digits, loss=loss, n_epochs=10, max_lr=5e-3, verbose=False)
        attacked = torchattacks.PGD(module, eps=0.15, alpha=0.05)(x, label)
        right[repr(loss)] = float((module(attacked).argmax(1) == label).double().mean())
    plain, robust = right.values()
    assert robust > plain + 0.1


def test_what_training_refuses(digits, small):
    X, y = digits
    with pytest.raises(ValueError, match="same number of rows.* got 400 and 399"):
        train(small, X, y[1:], verbose=False)
    with pytest.raises(ValueError, match="n_epochs must be a positive integer; got 0"):
        train(small, X, y, n_epochs=0, verbose=False)
    with pytest.raises(ValueError, match="the loss must be finite; got nan in epoch 0"):
        train(small, X * np.nan, y, verbose=False)
    assert not small.training
    with pytest.raises(ValueError, match="checkpoint must be in a folder that exists"):
        train(small, X, y, checkpoint="no/such/folder/t.pt", verbose=False)
