import os

import numpy as np
import pytest
import torch

from curvdetect import TorchModel
from curvdetect.datasets import load_dataset, load_fashion_mnist_sample
from curvdetect.networks import LeNet, ResNet20, load_lenet

DATA = os.environ.get("CURVDETECT_DATA")


def test_the_shipped_lenet_is_trained():
    X, y = load_fashion_mnist_sample()
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    assert np.mean(model.predict(X) == y) > 0.88


@pytest.mark.skipif(not DATA, reason="CURVDETECT_DATA is not set")
@pytest.mark.parametrize(
    ("name", "accuracy"), [("fashion-mnist", 0.90), ("mnist", 0.985)]
)
def test_accuracy_on_the_test_set(name, accuracy):
    X, y = load_dataset(name)
    model = TorchModel(load_lenet(name), input_shape=(1, 28, 28))
    assert np.mean(model.predict(X) == y) > accuracy


@pytest.mark.parametrize("size", [8, 9, 12, 16, 20, 28, 32])
def test_lenet_takes_images_of_its_size(size):
    module = LeNet(3, size).eval()
    assert module(torch.zeros(2, 1, size, size)).shape == (2, 3)


def test_resnet20_has_the_published_number_of_weights():
    weights = sum(p.numel() for p in ResNet20().parameters())
    assert weights == 269_722  # 0.27 million


def test_unknown_network():
    with pytest.raises(ValueError, match='dataset must be "fashion-mnist" or "mnist"'):
        load_lenet("imagenet")
