"""`CurvatureGuard`: the guard as a torch module."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    CurvatureThresholdDetector,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import LeNet, load_lenet


@pytest.fixture(scope="module")
def data():
    return load_fashion_mnist_sample()


@pytest.fixture
def guard(data):
    classifier = GuardedClassifier(
        load_lenet("fashion-mnist"), detector="threshold", target_fpr=0.05
    )
    return CurvatureGuard(classifier).calibrate(data[0][:60], data[1][:60])


@pytest.fixture
def x(data):
    return torch.from_numpy(data[0][60:80])


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_says_what_the_classifier_says(guard, x):
    found = guard(x)
    expected = guard.guard.assess(x)
    torch.testing.assert_close(found.logits, guard.module(x).detach())
    np.testing.assert_array_equal(found.label, expected.label)
    np.testing.assert_array_equal(found.recovered_label, expected.recovered_label)
    np.testing.assert_array_equal(found.flagged, expected.flagged)
    np.testing.assert_array_equal(found.score, expected.score)
    assert found.flagged.dtype == torch.bool
    assert found.label.dtype == torch.int64


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_serving_modes(guard, x, mode):
    expected = guard(x)
    with mode():
        assert same(guard(x), expected)
        assert same(guard(x.clone()), expected)  # an inference tensor
    assert same(guard.train()(x), expected)  # always as in eval mode
    assert guard.module.training
    assert all(p.requires_grad and p.grad is None for p in guard.parameters())


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_state_dict_holds_weights_and_calibration(data, x, wrapped):
    def classifier(network):
        if wrapped:
            network = TorchModel(network, input_shape=(1, 28, 28), mean=0.1, std=1.1)
        return GuardedClassifier(network, detector="threshold", target_fpr=0.05)

    guard = CurvatureGuard(classifier(load_lenet("fashion-mnist")))
    guard.calibrate(data[0][:60], torch.from_numpy(data[1][:60]))
    file = io.BytesIO()
    torch.save(guard.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    served = CurvatureGuard(classifier(LeNet().eval()))
    assert str(served.load_state_dict(state)) == "<All keys matched successfully>"
    assert same(served(x), guard(x))
    np.testing.assert_array_equal(served.guard.p_values(x), guard.guard.p_values(x))
    again = served.state_dict()
    assert again.keys() == state.keys()


def test_a_state_without_calibration():
    guard = CurvatureGuard(
        GuardedClassifier(load_lenet("fashion-mnist"), detector="threshold")
    )
    other = CurvatureGuard(GuardedClassifier(LeNet().eval(), detector="threshold"))
    other.load_state_dict(guard.state_dict())
    with pytest.raises(RuntimeError, match="not calibrated"):
        other(torch.zeros(1, 1, 28, 28))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))]
)
def test_a_copy_has_one_network_of_its_own(guard, x, duplicate):
    expected = guard(x)
    copied = duplicate(guard)
    assert copied.module is copied.guard.featurizer_.model_.module
    assert copied.module is not guard.module
    assert same(copied(x), expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert same(guard(x), expected)


def test_a_compiled_network_has_the_same_state(guard, x):
    network = torch.compile(LeNet().eval())
    served = CurvatureGuard(
        GuardedClassifier(network, detector="threshold", target_fpr=0.05)
    )
    served.load_state_dict(guard.state_dict())
    assert same(served(x), guard(x))


def test_it_moves(guard):
    assert guard.to("meta") is guard
    model = guard.guard.featurizer_.model_
    assert next(model.module.parameters()).device.type == "meta"
    assert guard.module is model.module


def test_double_precision(guard, x):
    expected = guard(x)
    found = guard.double()(x.double())
    assert found.logits.dtype == torch.float64
    torch.testing.assert_close(found.score, expected.score, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"target_fpr": 0.1}, "detector__target_fpr"),
        (
            {"detector": CurvatureThresholdDetector(statistic="sum", target_fpr=0.05)},
            "detector__statistic",
        ),
        (
            {"featurizer": CurvatureFeaturizer(None, n_boundaries=3)},
            "featurizer__n_boundaries",
        ),
        (
            {"model": TorchModel(LeNet().eval(), input_shape=(1, 28, 28))},
            "model__bounds",
        ),
    ],
)
def test_another_guard_refuses_the_state(guard, other, name):
    own = {"detector": "threshold", "target_fpr": 0.05}
    parameters = {"model": LeNet().eval(), **own, **other}
    stranger = CurvatureGuard(GuardedClassifier(**parameters))
    weights = {k: v.clone() for k, v in stranger.module.state_dict().items()}
    with pytest.raises(ValueError, match=f"other parameters.*{name}"):
        stranger.load_state_dict(guard.state_dict())
    for key, value in stranger.module.state_dict().items():
        assert torch.equal(value, weights[key])


def test_a_load_that_fails_changes_no_calibration(guard):
    fresh = CurvatureGuard(
        GuardedClassifier(LeNet().eval(), detector="threshold", target_fpr=0.05)
    )
    state = guard.state_dict()
    state["module.features.0.bias"] = torch.zeros(7)
    with pytest.raises(RuntimeError, match="size mismatch"):
        fresh.load_state_dict(state)
    assert not hasattr(fresh.guard, "relabeler_")
    assert fresh.guard.target_fpr == 0.05


def test_parameters_and_columns_of_other_kinds(data, x):
    """Arrays are tuples; the names of the columns of a data frame are not kept."""

    def made(network):
        featurizer = CurvatureFeaturizer(
            None, n_boundaries=1, step=0.4, laplacian_step=np.array([0.1, 0.3])
        ).set_output(transform="pandas")
        guard = GuardedClassifier(network, featurizer=featurizer, target_fpr=0.2)
        return CurvatureGuard(guard)

    guard = made(load_lenet("fashion-mnist")).calibrate(data[0][:30])
    served = made(LeNet().eval())
    served.load_state_dict(guard.state_dict())
    assert same(served(x), guard(x))
    assert served(x.bfloat16()).label.shape == (20,)


def test_a_state_of_a_later_version(guard):
    state = guard.state_dict()
    state["_extra_state"]["format"] = 99
    with pytest.raises(ValueError, match="format 99; this curvdetect reads up to 2"):
        guard.load_state_dict(state)
