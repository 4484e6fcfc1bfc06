import os

import numpy as np
import pytest
import torch

from curvdetect.study.datasets import (
    load_dataset,
    load_digits,
    load_fashion_mnist_sample,
)
from curvdetect.study.networks import (
    LeNet,
    ResNet20,
    load_lenet,
    train_lenet,
    train_on_digits,
    trained_model,
)

DATA = os.environ.get("CURVDETECT_DATA")


def test_the_shipped_lenet_is_trained():
    X, y = load_fashion_mnist_sample()
    model = trained_model("fashion-mnist")
    assert np.mean(model.predict(X) == y) > 0.88


@pytest.mark.skipif(not DATA, reason="CURVDETECT_DATA is not set")
@pytest.mark.parametrize(
    ("name", "accuracy"), [("fashion-mnist", 0.90), ("mnist", 0.985)]
)
def test_accuracy_on_the_test_set(name, accuracy):
    X, y = load_dataset(name)
    model = trained_model(name)
    assert np.mean(model.predict(X) == y) > accuracy


@pytest.mark.parametrize("size", [8, 9, 12, 16, 20, 28, 32])
def test_lenet_takes_images_of_its_size(size):
    module = LeNet(3, size).eval()
    assert module(torch.zeros(2, 1, size, size)).shape == (2, 3)


def test_resnet20_has_the_published_number_of_weights():
    weights = sum(p.numel() for p in ResNet20().parameters())
    assert weights == 269_722  # 0.27 million


def test_weights_of_your_own_take_the_place_of_the_shipped(tmp_path):
    torch.manual_seed(0)
    own = LeNet().eval()
    torch.save(own.state_dict(), tmp_path / "own.pt")
    x = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        expected = own(x).argmax(1).numpy()
    found = trained_model("mnist", weights=tmp_path / "own.pt").predict(x)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not DATA, reason="CURVDETECT_DATA is not set")
def test_the_resnet_is_given_images_as_it_was_trained_on():
    X, y = load_dataset("cifar10")
    assert np.mean(trained_model("cifar10").predict(X[:200]) == y[:200]) > 0.88


def test_weights_are_of_a_lenet(tmp_path):
    with pytest.raises(ValueError, match="weights must be None for cifar10"):
        trained_model("cifar10", weights=tmp_path / "own.pt")


def test_unknown_network():
    with pytest.raises(ValueError, match='dataset must be "fashion-mnist" or "mnist"'):
        load_lenet("imagenet")


# Trained anew -------------------------------------------------------


def same_weights(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_half_of_the_digits_teaches_the_other_half():
    X, y = load_digits()
    module = train_on_digits(X[897:], y[897:], seed=0)
    assert not module.training
    predicted = module(torch.from_numpy(X[:897])).argmax(1).numpy()
    assert np.mean(predicted == y[:897]) > 0.89


def test_a_lenet_learns_from_the_sample():
    X, y = load_fashion_mnist_sample()
    module = train_lenet(X[:600], y[:600], seed=0, verbose=False)
    assert not module.training
    predicted = module(torch.from_numpy(X[600:])).argmax(1).numpy()
    assert np.mean(predicted == y[600:]) > 0.6


@pytest.mark.parametrize("train", [train_lenet, train_on_digits])
def test_the_seed_alone_decides_what_is_learnt(train):
    X, y = load_digits() if train is train_on_digits else load_fashion_mnist_sample()
    before = torch.random.get_rng_state()
    first = train(X[:40], y[:40], seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(77)
    assert same_weights(first, train(X[:40], y[:40], seed=3))
    assert not same_weights(first, train(X[:40], y[:40], seed=4))
