import os
import random

# Before SciPy is imported: lets scikit-learn run its array API check too.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import settings
from quickly import learn_little

from curvdetect import GuardedClassifier, LearnedDetector, TorchModel
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from modules import second_lenet

matplotlib.use("Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the other cores have workers of their own
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
def quick(monkeypatch):
    """Fewer trees and attacks: for what does not depend on how much was learned."""
    learn_little(monkeypatch)


@pytest.fixture
def with_companion(quick):
    """A guard with a companion, bare or wrapped, and images it has not seen."""

    def made(wrapped=False, fit=True):
        networks = [load_lenet("fashion-mnist"), second_lenet()]
        if wrapped:
            networks = [TorchModel(each, input_shape=(1, 28, 28)) for each in networks]
        network, companion = networks
        detector = LearnedDetector(target_fpr=0.1, self_test=False, random_state=0)
        guard = GuardedClassifier(network, companion=companion, detector=detector)
        X, y = load_fashion_mnist_sample()
        return (guard.fit(X[:90], y[:90]) if fit else guard), X[90:120]

    return made


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_random_numbers():
    random.seed(0)  # Attacks of other packages draw from all three.
    np.random.seed(0)
    torch.manual_seed(0)
