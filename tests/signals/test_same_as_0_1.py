"""Features are those of version 0.1, stored before the signals; at no more passes."""

from pathlib import Path

import numpy as np
import pytest

from curvdetect import CurvatureFeaturizer
from curvdetect.study.datasets import load_dataset, load_fashion_mnist_sample
from curvdetect.study.metrics import count_passes
from curvdetect.study.networks import trained_model

SETTINGS = {
    "default": {},
    "three": {"n_boundaries": 3, "n_curved": 2, "n_directions": 3},
    "everything": {
        "features": ("curvature", "distance", "laplacian"),
        "step": (0.1, 0.4),
        "laplacian_step": (0.5, 2.0),
        "n_directions": 5,
    },
    "nearest": {
        "features": ("curvature", "distance", "laplacian"),
        "layout": "nearest",
        "n_boundaries": 4,
    },
    "input": {"at": "input", "features": ("curvature", "distance")},
    "gradient": {"method": "gradient", "n_boundaries": 2, "n_directions": 4},
}
STORED = Path(__file__).parents[1] / "data" / "features_of_0_1.npz"


def images_of(network):
    if network == "fashion-mnist":
        return load_fashion_mnist_sample()[0][:64]
    try:
        return load_dataset("cifar10", download=False)[0][:16]
    except FileNotFoundError:
        pytest.skip("needs CIFAR-10 and the trained ResNet-20")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("network", "name"),
    [
        *(("fashion-mnist", name) for name in SETTINGS),
        ("cifar10", "default"),
        ("cifar10", "three"),
    ],
)
def test_features(network, dtype, name):
    X = images_of(network).astype(dtype)
    model = trained_model(network)
    if dtype == np.float64:
        model.module.double()
    featurizer = CurvatureFeaturizer(model, random_state=0, **SETTINGS[name]).fit(X)
    featurizer.transform(X[:1])  # chooses the size of batches
    with count_passes(model.module) as passes:
        F = featurizer.transform(X)
    key = f"{network}/{np.dtype(dtype).name}/{name}"
    with np.load(STORED) as stored:
        expected, step = stored[key], stored[f"{key}/step"]
        cost = float(stored[f"{key}/cost"])
    assert F.dtype == dtype
    np.testing.assert_allclose(featurizer.step_, step, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(F), np.isnan(expected))
    F, expected = (np.ma.masked_invalid(values) for values in (F, expected))
    exact, apart = dtype == np.float64, np.abs(F - expected).compressed()
    if exact:
        assert apart.max() <= 1e-8
    else:  # convolutions round otherwise on another processor: a kink may be crossed
        assert np.quantile(apart, 0.95) <= 1e-3 * expected.std()
        assert apart.max() <= 0.2 * expected.std()
    # After rounding, a few rows more or fewer need another Newton step.
    slack = 0 if exact else 0.5
    assert passes.forward_equivalents / len(X) <= cost + slack


@pytest.mark.parametrize("name", SETTINGS)
def test_cost_is_what_is_counted(name):
    """Up to what the way to a boundary takes on the images at hand."""
    with np.load(STORED) as stored:
        counted = float(stored[f"fashion-mnist/float64/{name}/cost"])
    X = images_of("fashion-mnist")
    featurizer = CurvatureFeaturizer(
        trained_model("fashion-mnist"), random_state=0, **SETTINGS[name]
    ).fit(X)
    assert featurizer.cost() == pytest.approx(counted, rel=0.1)
