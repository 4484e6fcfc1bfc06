import os

# Before SciPy is imported: lets scikit-learn run its array API check too.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import settings

from curvdetect import TorchModel
from curvdetect.datasets import load_fashion_mnist_sample
from curvdetect.networks import load_lenet

matplotlib.use("Agg")
settings.register_profile("here", deadline=None, max_examples=50)
settings.load_profile("here")


@pytest.fixture
def lenet():
    """The shipped network, in eval mode."""
    return load_lenet("fashion-mnist")


@pytest.fixture
def model(lenet):
    return TorchModel(lenet, input_shape=(1, 28, 28))


@pytest.fixture(scope="session")
def images():
    """A few images of every class, and their labels."""
    X, y = load_fashion_mnist_sample()
    return X[:40], y[:40]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
