import os

import numpy as np
import pytest
import torch

from benchmarks.common import networks as known
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.geometry import PairwiseMargin, mean_curvature, random_directions
from curvdetect.network import find_nearest_boundaries
from curvdetect.study.datasets import (
    DATASETS,
    load_dataset,
    load_digits,
    load_fashion_mnist_sample,
)
from curvdetect.study.networks import (
    NETWORKS,
    ConvNet,
    LeNet,
    ResNet20,
    SmallViT,
    load_lenet,
    train_convnet,
    train_lenet,
    train_on_digits,
    train_vit,
    trained_model,
)

DATA = os.environ.get("CURVDETECT_DATA")
SMOOTH = ("fashion-mnist-vit", "fashion-mnist-convnet")


@pytest.mark.parametrize("name", ["fashion-mnist", *SMOOTH])
def test_the_shipped_networks_are_trained(name):
    X, y = load_fashion_mnist_sample()
    assert np.mean(trained_model(name).predict(X) == y) > 0.88


@pytest.mark.skipif(not DATA, reason="CURVDETECT_DATA is not set")
@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("fashion-mnist", 0.90),
        ("fashion-mnist-vit", 0.89),
        ("fashion-mnist-convnet", 0.90),
        ("mnist", 0.985),
    ],
)
def test_accuracy_on_the_test_set(name, accuracy):
    X, y = load_dataset(NETWORKS[name])
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
    with pytest.raises(ValueError, match="name must be one of .* got 'imagenet'"):
        trained_model("imagenet")
    with pytest.raises(ValueError, match='dataset must be "fashion-mnist" or "mnist"'):
        load_lenet("imagenet")


def test_every_network_of_the_benchmarks_loads():
    assert known.NETWORKS.keys() == NETWORKS.keys()
    for name in NETWORKS if DATA else known.SMALL:
        model = trained_model(name)
        assert model.predict(np.zeros((2, *model.input_shape))).shape == (2,)
        assert NETWORKS[name] in DATASETS
        assert 0 < known.smallest_eps(name) < 0.2


@pytest.mark.skipif(not DATA, reason="CURVDETECT_DATA is not set")
@pytest.mark.parametrize("name", SMOOTH)
def test_benchmarks_give_a_network_the_images_of_its_data_set(name):
    X, y = load_dataset("fashion-mnist", train=True)
    (known_X, known_y), (left_X, left_y) = (
        getattr(known, part)(name) for part in ("training_images", "development_images")
    )
    np.testing.assert_array_equal(np.concatenate([known_X, left_X]), X)
    np.testing.assert_array_equal(np.concatenate([known_y, left_y]), y)
    assert len(left_X) == known.N_DEVELOPMENT


# The vision transformer and the ConvNet -----------------------------


@pytest.mark.parametrize(
    ("module", "n_weights"), [(SmallViT, 75_778), (ConvNet, 56_394)]
)
def test_smooth_networks_have_as_many_weights_as_they_say(module, n_weights):
    network = module()
    assert sum(p.numel() for p in network.parameters()) == n_weights
    assert f"{n_weights:,} weights" in module.__doc__


def test_networks_take_as_many_classes_and_pixels_as_they_are_told():
    assert SmallViT(3, 16)(torch.zeros(2, 1, 16, 16)).shape == (2, 3)
    assert ConvNet(3)(torch.zeros(2, 1, 28, 28)).shape == (2, 3)


@pytest.mark.parametrize("size", [0, 2, 30])
def test_a_vit_has_whole_patches(size):
    with pytest.raises(ValueError, match=f"multiple of 4; got {size}"):
        SmallViT(image_size=size)


@pytest.mark.parametrize("name", SMOOTH)
def test_what_an_image_gives_does_not_depend_on_its_batch(name):
    module = trained_model(name).module.double()
    x = torch.from_numpy(load_fashion_mnist_sample()[0][:6]).double()
    together, alone = module(x), torch.cat([module(row) for row in x.split(1)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-10)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(module(x)[0].sum(), x)
    assert gradient[0].abs().max() > 0
    assert not gradient[1:].any()


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_the_same_with_and_without_a_graph_of_weights(name):
    """Inference of some layers of torch takes another path than training does."""
    module = trained_model(name).module
    x = torch.from_numpy(load_fashion_mnist_sample()[0][:6])
    with torch.no_grad():
        without = module(x)
    assert torch.allclose(module(x), without, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SMOOTH)
def test_exact_second_derivatives_are_those_of_differences(name):
    module = trained_model(name).module.double()
    x = torch.from_numpy(load_fashion_mnist_sample()[0][:3]).double()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    h = 1e-5

    def gradient(z, create_graph=False):
        logits = module(z)
        margin = logits[:, 0] - logits[:, 1]
        (g,) = torch.autograd.grad(margin.sum(), z, create_graph=create_graph)
        return g

    x.requires_grad_()
    (exact,) = torch.autograd.grad((gradient(x, create_graph=True) * v).sum(), x)
    differences = (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
    assert exact.abs().max() > 1e-3
    assert (exact - differences).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("name", SMOOTH)
def test_single_precision_measures_the_curvature_of_double(name):
    X, _ = load_fashion_mnist_sample()
    model = trained_model(name)
    step = float(CurvatureFeaturizer(model, random_state=0).fit(X[:40]).step_)
    double = TorchModel(trained_model(name).module.double(), input_shape=(1, 28, 28))
    nearest = find_nearest_boundaries(model, X[:8], n_boundaries=3)
    V = random_directions(8, (1, 28, 28), generator=torch.Generator().manual_seed(0))
    kappa, exact = (
        mean_curvature(
            PairwiseMargin(of.logits, nearest.margin.predicted, nearest.margin.other),
            nearest.points.to(dtype),
            n_directions="all",
            directions=V.to(dtype),
            step=step,
        ).double()
        for of, dtype in ((model, torch.float32), (double, torch.float64))
    )
    assert nearest.found.all()
    assert (kappa - exact).abs().max() < 0.01 * exact.abs().median()


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


@pytest.mark.parametrize(
    "train", [train_lenet, train_vit, train_convnet, train_on_digits]
)
def test_the_seed_alone_decides_what_is_learnt(train):
    X, y = load_digits() if train is train_on_digits else load_fashion_mnist_sample()
    before = torch.random.get_rng_state()
    first = train(X[:40], y[:40], seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(77)
    assert same_weights(first, train(X[:40], y[:40], seed=3))
    assert not same_weights(first, train(X[:40], y[:40], seed=4))
