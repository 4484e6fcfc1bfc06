"""The same on another device, and seldom waiting for it."""

import numpy as np
import pytest
import torch
from elsewhere import NAME, Device, Elsewhere, move
from numpy.testing import assert_array_equal
from sklearn.base import clone

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    LearnedDetector,
    TorchModel,
    VotingDetector,
    geometry,
)
from curvdetect.network import find_nearest_boundaries
from curvdetect.study.networks import load_lenet
from modules import second_lenet, smooth_lenet

SETTINGS = {
    "default": {},
    "few": {"n_boundaries": 3, "n_curved": 2, "n_directions": 3},
    "nearest": {"layout": "nearest", "features": ("distance", "curvature")},
    "laplacian": {"features": ("laplacian",), "step": (0.1, 1.0)},
    "at the image": {"at": "input", "n_boundaries": 2},
    "gradients": {"method": "gradient", "n_boundaries": 2},
    "all directions": {"n_directions": "all", "n_boundaries": 1},
}


@pytest.fixture
def model():
    """A network with normalisation, in batches of the same size on every device."""
    return TorchModel(
        load_lenet("fashion-mnist"),
        input_shape=(1, 28, 28),
        mean=0.1,
        std=1.1,
        batch_size=64,
    )


def test_the_device_refuses_what_a_gpu_refuses():
    with Device() as device:
        a = Elsewhere(torch.ones(3))
        with pytest.raises(RuntimeError, match="two devices"):
            a + torch.ones(3)
        assert (a + 1).device.type == NAME
        assert device.waits == []
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(3, generator=torch.Generator(), device=NAME)
        assert device.waits == []
        assert (a > 0).any()
        assert a[a > 0].shape == (3,)
        a[a > 0] = a + 1
        assert_array_equal(a.cpu().numpy(), 2)
        torch.ones(3).to(NAME)
    assert len(device.waits) == 5


@pytest.mark.parametrize("name", SETTINGS)
def test_features_are_the_same(name, model, images):
    same_features(model, images[0][:4], SETTINGS[name])


def test_exact_features_are_the_same(images):
    model = TorchModel(smooth_lenet(), input_shape=(1, 28, 28), batch_size=64)
    settings = {"method": "autodiff", "n_boundaries": 1, "n_directions": 2}
    same_features(model, images[0][:4].astype(float), settings)


def same_features(model, X, settings):
    featurizer = CurvatureFeaturizer(model, random_state=0, **settings).fit(X)
    expected = featurizer.transform(X)
    assert np.nanmin(np.abs(expected)) > 0
    with Device():
        move(model.module)
        assert_array_equal(featurizer.transform(X), expected)
        refit = CurvatureFeaturizer(model, random_state=0, **settings)
        assert_array_equal(refit.fit_transform(X), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", SETTINGS)
def test_a_gpu_gives_the_same(name, model, images):
    X = images[0]
    featurizer = CurvatureFeaturizer(model, random_state=0, **SETTINGS[name]).fit(X)
    expected = featurizer.transform(X)
    model.module.to("cuda")
    found = featurizer.transform(X)
    assert_array_equal(np.isnan(found), np.isnan(expected))
    # Rounding may lead a few searches to the other side of a kink.
    near = np.isclose(found, expected, rtol=1e-2, atol=1e-3, equal_nan=True)
    assert near.mean() > 0.98


@pytest.mark.parametrize("n_images", [10, 40])
def test_how_often_a_batch_waits(n_images, model, images):
    X = images[0][:n_images]
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(X)
    waits = {}
    with Device() as device:
        move(model.module)
        for n_batches in (1, 2):
            model.batch_size = -(-9 * n_images // (2 * n_batches))
            featurizer.transform(X[:1])
            device.waits.clear()
            featurizer.transform(X)
            waits[n_batches] = len(device.waits)
    # Two copies (images, directions), at most six Newton steps that ask how many rows
    # are left, and one question each: finite, last step, far, doubtful, defined. More
    # only where a row has to be searched for.
    assert waits[2] - waits[1] <= 13
    # What was measured is copied at the end, in six pieces.
    assert waits[1] <= 13 + 6


def test_the_guard(model, images):
    X, y = images
    guard = CurvatureGuard(
        GuardedClassifier(model, detector="threshold", target_fpr=0.1)
    ).calibrate(X, y)
    x = torch.from_numpy(X[:4])
    expected = guard(x)
    with Device():
        move(model.module)
        found = guard(x.to(NAME))
        for values, others in zip(found, expected, strict=True):
            assert values.device.type == NAME
            assert_array_equal(values.cpu().numpy(), others.numpy())


@pytest.fixture
def learned(model, images):
    """A detector that learned on the CPU, from few attacks."""
    X, y = (np.concatenate([part, part[::-1]]) for part in images)
    return LearnedDetector(
        model, target_fpr=0.2, kinds=("minimal norm",), self_test=False, random_state=0
    ).fit(X, y)


def test_the_learned_detector(learned, model, images):
    X = images[0]
    expected = learned.examine(X)
    waits = {}
    with Device() as device:
        move(model.module)
        for n_batches in (1, 2):
            model.batch_size = -(-len(X) // n_batches)
            learned.examine(X[:1])  # moves the forests
            device.waits.clear()
            for found, other in zip(learned.examine(X), expected, strict=True):
                assert_array_equal(found, other)
            waits[n_batches] = len(device.waits)
    # Of a batch: images, bounds, and direction go there, five pieces of what was found
    # come back, and after either stage it asks how many images go on.
    assert waits[2] - waits[1] <= 12


def test_learning_elsewhere_is_the_same(learned, model, images):
    X, y = (np.concatenate([part, part[::-1]]) for part in images)
    with Device():
        move(model.module)
        other = clone(learned).fit(X, y)
        assert_array_equal(other.score_samples(X), learned.score_samples(X))


@pytest.mark.parametrize("both", [True, False])
def test_a_companion_beside_the_network_and_elsewhere(both, learned, model, images):
    X, y = (np.concatenate([part, part[::-1]]) for part in images)
    companion = TorchModel(second_lenet(), input_shape=(1, 28, 28), batch_size=64)
    learned = clone(learned).set_params(companion=companion).fit(X, y)
    expected = learned.examine(images[0])
    with Device():
        move(model.module)
        if both:
            move(companion.module)
        for found, other in zip(learned.examine(images[0]), expected, strict=True):
            assert_array_equal(found, other)


@pytest.mark.parametrize("both", [True, False])
def test_votes(both, model, images):
    X, y = images
    companion = TorchModel(second_lenet(), input_shape=(1, 28, 28), batch_size=64)
    voting = VotingDetector(
        model, companion, sigma=0.1, n_votes=20, target_fpr=0.2, random_state=0
    ).fit(X, y)
    expected = voting.examine(X[:6])
    with Device():
        move(model.module)
        if both:
            move(companion.module)
        for found, other in zip(voting.examine(X[:6]), expected, strict=True):
            assert_array_equal(found, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_decides_the_same(learned, model, images):
    expected = learned.examine(images[0])
    model.module.to("cuda")
    found = learned.examine(images[0])
    assert_array_equal(found.flagged, expected.flagged)
    np.testing.assert_allclose(found.score, expected.score, atol=0.1)


def _adversarial(model, x):
    return geometry.find_adversarial_perturbation(model.logits, x, bounds=(0, 1))


def _combinations(model, x):
    generator = torch.Generator().manual_seed(0)
    return geometry.convex_combinations(
        model.logits, x, k=2, n_draws=20, generator=generator
    )


def _eigenvalues(model, x):
    generator = torch.Generator().manual_seed(0)
    loss = model.loss(model.logits(x).argmax(1))
    return geometry.hessian_eigenvalues(
        loss, x, k=2, max_iter=5, step=1.0, generator=generator
    )


def _path(model, x):
    return geometry.find_path_in_region(model.logits, x, 0.8 * x)


def _principal(model, x):
    generator = torch.Generator().manual_seed(0)
    nearest = find_nearest_boundaries(model, x, n_boundaries=2)
    found = geometry.principal_curvatures(
        nearest.margin, nearest.points, k=2, max_iter=5, generator=generator
    )
    return nearest.distances, *found


def _subspace(model, x):
    generator = torch.Generator().manual_seed(0)
    device = x.device
    basis = geometry.random_subspace(4, x.shape[1:], generator=generator, device=device)
    changes = geometry.label_changes(
        model.logits, x, basis, norm=3.0, generator=generator
    )
    return changes, *geometry.shared_subspace(x)


def _trace(model, x):
    generator = torch.Generator().manual_seed(0)
    margin = model.margin(model.logits(x).argmax(1), model.logits(x).argmin(1))
    return geometry.hessian_trace(
        margin,
        x,
        n_directions=6,
        estimator="xtrace",
        method="gradient",
        return_error=True,
        generator=generator,
    )


def _universal(model, x):
    generator = torch.Generator().manual_seed(0)
    v = geometry.find_universal_perturbation(
        model.logits, x, norm=2.0, n_steps=5, batch_size=2, generator=generator
    )
    return v, geometry.fooling_rate(model.logits, x, v[None])


@pytest.mark.parametrize(
    "measured",
    [
        _adversarial,
        _combinations,
        _eigenvalues,
        _path,
        _principal,
        _subspace,
        _trace,
        _universal,
    ],
)
@pytest.mark.filterwarnings("ignore:.*did not reach a residual")
def test_geometry_is_the_same(measured, model, images):
    def results():
        (x,) = model.split(model.to_tensor(images[0][:4]))
        with model.evaluating():
            found = measured(model, x)
        return [found] if isinstance(found, torch.Tensor) else list(found)

    expected = results()
    with Device():
        move(model.module)
        for values, others in zip(results(), expected, strict=True):
            assert values.device.type == NAME
            assert_array_equal(values.cpu().numpy(), others.numpy())
