"""Companions: trained, and told what they are."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import TorchModel
from curvdetect.study.datasets import load_digits
from curvdetect.study.networks import LeNet, train_on_digits
from curvdetect.study.training import CURE, CrossEntropy, GaussianNoise, train_companion


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits()
    return X[:500], y[:500]


@pytest.fixture(scope="module")
def network(digits):
    return TorchModel(train_on_digits(*digits, seed=0), input_shape=(1, 8, 8))


@pytest.fixture(scope="module")
def trained(network, digits):
    return train_companion(network, *digits, n_epochs=3, verbose=False)


def test_it_is_flatter_and_still_agrees(network, trained):
    assert trained.agreement > 0.9
    assert trained.norm[1] > trained.norm[0]
    assert trained.joint_norm > trained.norm[0]
    assert trained.accuracy[0] > 0.9
    assert trained.n_validation == 50
    assert "times the first" in str(trained)
    assert not trained.model.module.training
    assert trained.model.module is not network.module


def test_what_is_told_is_true(network, trained, digits):
    """On all images, most of which it was trained on: about the same or better."""
    X, y = digits
    right = network.predict(X) == y
    own = trained.model.predict(X)
    assert np.mean(own[right] == y[right]) > trained.agreement - 0.1


def test_the_network_is_left_as_it_was(network, digits):
    before = copy.deepcopy(network.module.state_dict())
    state = torch.get_rng_state()
    train_companion(network, *digits, n_epochs=1, verbose=False)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in network.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(weight.grad is None for weight in network.module.parameters())


def test_without_labels_the_networks_own_are_learned(network, digits):
    trained = train_companion(network, digits[0], n_epochs=1, verbose=False)
    assert np.isnan(trained.accuracy).all()
    assert "right" not in str(trained)
    assert trained.agreement > 0.9


def test_another_module_is_trained_in_place(network, digits):
    torch.manual_seed(0)
    module = LeNet(image_size=8)
    trained = train_companion(
        network, *digits, module=module, loss=CrossEntropy(), n_epochs=40, verbose=False
    )
    assert trained.model.module is module
    assert trained.agreement > 0.8


def test_of_several_losses_the_one_that_costs_most_is_kept(network, digits, tmp_path):
    losses = [CrossEntropy(), CURE(strength=0.1), GaussianNoise(sigma=0.1)]
    best = train_companion(
        network,
        *digits,
        loss=losses,
        n_epochs=2,
        checkpoint=tmp_path / "file.pt",
        verbose=False,
    )
    assert len(list(tmp_path.glob("file-*.pt"))) == 3
    each = [
        train_companion(network, *digits, loss=loss, n_epochs=2, verbose=False)
        for loss in losses
    ]
    joint = [trained.joint_norm for trained in each]
    assert best.joint_norm == max(joint)
    assert best.loss == repr(losses[int(np.argmax(joint))])


def test_normalisation_and_batch_norm(digits):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 10),
    ).eval()
    model = TorchModel(module, input_shape=(1, 8, 8), mean=0.3, std=0.4)
    network = train_companion(
        model, *digits, module=module, loss=CrossEntropy(), n_epochs=15, verbose=False
    ).model
    trained = train_companion(network, *digits, loss=CURE(strength=0.01), verbose=False)
    assert (trained.model.mean, trained.model.std) == (model.mean, model.std)
    assert trained.agreement > 0.8
    assert not trained.model.module[1].training


def test_a_network_that_is_too_small_is_told(network, digits):
    torch.manual_seed(0)
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.warns(UserWarning, match="too small for"):
        train_companion(network, *digits, module=small, n_epochs=1, verbose=False)


def test_what_it_refuses(network, digits):
    X, y = digits
    with pytest.raises(TypeError, match="model must be a TorchModel"):
        train_companion(network.module, X)
    with pytest.raises(ValueError, match="a label for each of 500 images"):
        train_companion(network, X, y[:5])
    with pytest.raises(ValueError, match="validation must be strictly"):
        train_companion(network, X, validation=0)
    with pytest.raises(ValueError, match="loss must be a loss, or several"):
        train_companion(network, X, loss=[])
    with pytest.raises(ValueError, match="X must hold at least 3"):
        train_companion(network, X[:2])


def test_a_loss_that_diverges_costs_no_other(network, digits):
    def diverges(module, x, y, progress):
        return module(x).sum() * torch.nan

    losses = [GaussianNoise(sigma=0.1), diverges]
    with pytest.warns(UserWarning, match="is left out: the loss must be finite"):
        trained = train_companion(
            network, *digits, loss=losses, n_epochs=1, verbose=False
        )
    assert trained.loss == repr(losses[0])
    with pytest.raises(ValueError, match="the loss must be finite"):
        train_companion(network, *digits, loss=diverges, n_epochs=1, verbose=False)


def test_a_network_that_nothing_fools(digits):
    """Nothing is to be compared then, and the training is not lost."""

    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * torch.stack([5 + 0 * x[:, 0, 0, 0], x[:, 0, 0, 0]], 1)

    model = TorchModel(Stubborn().eval(), input_shape=(1, 8, 8))
    trained = train_companion(model, digits[0], n_epochs=1, verbose=False)
    assert np.isinf(trained.joint_norm)
    assert np.isinf(trained.norm[0])
