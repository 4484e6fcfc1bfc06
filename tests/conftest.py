import json
import os
import runpy
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Before SciPy is imported: lets scikit-learn run its array API check too.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import settings

from curvdetect import GuardedClassifier, LearnedDetector, TorchModel
from curvdetect.attacks import effort
from curvdetect.estimators import _forest
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
    grow = _forest.HistGradientBoostingClassifier
    monkeypatch.setattr(
        _forest,
        "HistGradientBoostingClassifier",
        lambda **settings: grow(**{**settings, "max_iter": 5}),
    )
    monkeypatch.setattr(effort, "SMALL", effort.SMALL._replace(n_attacked=400))


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
    torch.manual_seed(0)


@contextmanager
def served(make_guard=None):
    """Serve the HTTP example on the loopback: how to ask it, and its guard."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    examples = Path(__file__).parents[1] / "docs" / "examples"
    example = runpy.run_path(str(examples / "serve_http.py"))
    guard = (make_guard or example["calibrated_guard"])()
    config = uvicorn.Config(example["make_app"](guard), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy

    def ask(body, *, method="POST", path="/classify"):
        url = f"http://127.0.0.1:{port}{path}"
        request = urllib.request.Request(url, data=body, method=method)
        try:
            with opener.open(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    try:
        yield ask, guard
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def http():
    """The HTTP example as it is."""
    with served() as asked:
        yield asked


@pytest.fixture
def http_with():
    """The HTTP example for another guard."""
    with ExitStack() as stack:
        yield lambda guard: stack.enter_context(served(lambda: guard))[0]
