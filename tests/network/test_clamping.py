"""Networks that must not be asked outside their bounds, and the clamp for them."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from curvdetect import (
    CurvatureFeaturizer,
    CurvatureGuard,
    GuardedClassifier,
    TorchModel,
)
from curvdetect.attacks import pgd
from curvdetect.geometry import margin_gradient
from curvdetect.network import find_nearest_boundaries
from curvdetect.storage import load, save
from curvdetect.study.metrics import count_passes
from curvdetect.study.networks import LeNet
from modules import Returns, smooth_lenet

D, BOUNDS = 6, (0.1, 0.9)
W, B = np.random.default_rng(5).normal(size=(D, 3)), np.array([0.0, 0.3, -0.2])


def root(x):
    return (x - BOUNDS[0]).sqrt() @ torch.from_numpy(W) + torch.from_numpy(B)


def logarithm(x):
    return (x - BOUNDS[0] + 1e-3).log() @ torch.from_numpy(W / 5) + torch.from_numpy(B)


def checked(x):
    if x.min() < BOUNDS[0] or x.max() > BOUNDS[1]:
        raise AssertionError("not an image")
    return (x**2) @ torch.from_numpy(W) + torch.from_numpy(B)


#: The same for arrays: logits and their derivatives at x, times W.
BY_HAND = {
    root: (lambda x: np.sqrt(x - BOUNDS[0]), lambda x: 0.5 / np.sqrt(x - BOUNDS[0])),
    logarithm: (
        lambda x: np.log(x - BOUNDS[0] + 1e-3) / 5,
        lambda x: 1 / (x - BOUNDS[0] + 1e-3) / 5,
    ),
    checked: (lambda x: x**2, lambda x: 2 * x),
}
NETWORKS = pytest.mark.parametrize(
    "network", BY_HAND, ids=lambda network: network.__name__
)


def model_of(network, **settings):
    return TorchModel(Returns(network), input_shape=(D,), bounds=BOUNDS, **settings)


@pytest.fixture
def inputs(rng):
    low, high = BOUNDS
    return rng.uniform(low + 0.01, high - 0.01, (12, D))


# What is computed ---------------------------------------------------


@NETWORKS
def test_features_are_those_of_the_clamped_function(network, inputs):
    h = 0.5  # every probe leaves the bounds
    featurizer = CurvatureFeaturizer(
        model_of(network, clamp=True),
        at="input",
        features=("curvature", "laplacian"),
        n_directions=5,
        step=h,
        random_state=0,
    ).fit(inputs)
    found = featurizer.transform(inputs)

    value, slope = BY_HAND[network]

    def logits(x):
        return value(np.clip(x, *BOUNDS)) @ W + B

    expected = np.full((len(inputs), 2, 3), np.nan)
    for x, row in zip(inputs, expected, strict=True):
        predicted = logits(x).argmax()
        for j in {0, 1, 2} - {predicted}:
            margin = lambda x, i=predicted, j=j: logits(x)[..., i] - logits(x)[..., j]
            gradient = slope(x) * (W[:, predicted] - W[:, j])
            normal = gradient / np.linalg.norm(gradient)
            u = featurizer.directions_
            v = u - (u @ normal)[:, None] * normal
            v /= np.linalg.norm(v, axis=1, keepdims=True)
            around = lambda v, F=margin, x=x: F(x + h * v) + F(x - h * v) - 2 * F(x)
            row[0, j] = -around(v).mean() / h**2 / np.linalg.norm(gradient)
            row[1, j] = -around(u).mean() / 2
    np.testing.assert_allclose(found, expected.reshape(len(inputs), -1), rtol=1e-9)


@NETWORKS
def test_boundaries_are_those_of_the_clamped_function(network, inputs):
    clamp = lambda x: network(torch.minimum(torch.maximum(x, low), high))
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in BOUNDS)
    found, expected = (
        CurvatureFeaturizer(
            model, features=("curvature", "distance"), step=0.5, random_state=0
        ).fit_transform(inputs)
        for model in (model_of(network, clamp=True), model_of(clamp))
    )
    assert np.isfinite(found).any()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_normalisation_comes_after(inputs):
    model = model_of(lambda x: x, clamp=True, mean=0.5, std=0.2)
    x = torch.from_numpy(inputs) * 3 - 1
    expected = (np.clip(x.numpy(), *BOUNDS) - 0.5) / 0.2
    np.testing.assert_allclose(model.logits(x).numpy(), expected)
    np.testing.assert_allclose(model.as_module()(x).numpy(), expected)


# The gradient -------------------------------------------------------

#: Below, on, within, on and above the bounds.
PLACES = [0.0, 0.1, 0.5, 0.9, 1.0]
INSIDE = [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_one_on_the_bounds_and_zero_outside(dtype):
    model = model_of(lambda x: x, clamp=True)
    x = torch.tensor([PLACES], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.logits(x).sum(), x)
    assert gradient.tolist() == [INSIDE]
    assert model.logits(x).tolist() == x.detach().clamp(*BOUNDS).tolist()


def test_second_derivatives_and_transforms_of_torch():
    model = model_of(lambda x: x**2, clamp=True)
    x = torch.tensor([PLACES, PLACES[::-1]], dtype=torch.float64)
    inside = torch.tensor([INSIDE, INSIDE[::-1]], dtype=torch.float64)
    one = lambda x: model.logits(x[None])[0]
    jacobian = torch.func.vmap(torch.func.jacrev(one))(x)
    torch.testing.assert_close(jacobian, torch.diag_embed(2 * x * inside))
    hessian = torch.func.vmap(torch.func.hessian(lambda x: one(x).sum()))(x)
    torch.testing.assert_close(hessian, torch.diag_embed(2 * inside))
    leaf = x.clone().requires_grad_()
    (once,) = torch.autograd.grad(model.logits(leaf).sum(), leaf, create_graph=True)
    (twice,) = torch.autograd.grad(once.sum(), leaf)
    torch.testing.assert_close(twice, 2 * inside)


def test_nothing_infinite_comes_through_from_outside():
    """The root is infinitely steep on its bound, where values from outside end."""
    x = torch.tensor([[0.0, 0.5, 0.5, 0.5, 0.5, 2.0]], dtype=torch.float64)
    model = model_of(root, clamp=True)
    margin = model.margin(torch.tensor([0]), torch.tensor([1]))
    with model.evaluating():
        gradient = margin_gradient(margin, x)[0]
    assert gradient[[0, 5]].tolist() == [0, 0]
    assert bool((gradient[1:5] != 0).all() & gradient.isfinite().all())


def test_black_and_white_images_keep_their_gradients(lenet):
    x = torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)])
    gradients = []
    for clamp in (False, True):
        model = TorchModel(lenet, input_shape=(1, 28, 28), clamp=clamp)
        margin = model.margin(model.logits(x).argmax(1), torch.tensor([9, 9]))
        with model.evaluating():
            gradients.append(margin_gradient(margin, x))
    assert bool(gradients[0].flatten(1).any(1).all())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (torch.zeros(()), torch.ones(()))])
def test_a_network_that_clamps_itself(images, limits):
    """Its gradient at black and white depends on the version of torch: it is said."""
    smooth = smooth_lenet()
    clamps = Returns(lambda x: smooth(x.clamp(*limits)))
    x = torch.from_numpy(images[0][:4]).double()
    black, first = x == 0, torch.zeros(4, dtype=torch.int64)

    def gradient(module, **settings):
        model = TorchModel(module, input_shape=(1, 28, 28), **settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.check(x)
        with model.evaluating():
            found = margin_gradient(model.margin(first, first + 1), x)
        return found, [w for w in caught if "clamp its input" in str(w.message)]

    plain, _ = gradient(smooth)
    stopped, said = gradient(clamps)
    lost = stopped[black].abs().mean() < 0.9 * plain[black].abs().mean()
    assert len(said) == int(lost)
    mended, said = gradient(clamps, clamp="inside")
    assert not said
    torch.testing.assert_close(mended, plain, rtol=1e-3, atol=1e-3)


def test_within_the_bounds_nothing_changes(lenet, images):
    plain, clamping = (
        TorchModel(lenet, input_shape=(1, 28, 28), clamp=clamp)
        for clamp in (False, True)
    )
    X, y = images[0][:6], images[1][:6]
    np.testing.assert_array_equal(clamping.predict_logits(X), plain.predict_logits(X))
    attacked = []
    for model in (plain, clamping):
        torch.manual_seed(0)
        attack = pgd(model, eps=0.05)
        attacked.append(attack(torch.from_numpy(X), torch.from_numpy(y)))
    assert torch.equal(*attacked)


def test_it_can_be_exported_and_compiled(lenet):
    model = TorchModel(lenet, input_shape=(1, 28, 28), clamp=True)
    x = torch.rand(2, 1, 28, 28) * 3 - 1
    expected = model.logits(x)
    exported = torch.export.export(model.as_module(), (x,), strict=False).module()
    torch.testing.assert_close(exported(x), expected)
    compiled = torch.compile(model.as_module(), backend="eager")
    torch.testing.assert_close(compiled(x), expected)


# Copies and files ---------------------------------------------------


def test_it_is_a_setting(lenet):
    plain, clamping = (
        TorchModel(lenet, input_shape=(1, 28, 28), clamp=clamp)
        for clamp in (False, True)
    )
    assert joblib.hash(plain) != joblib.hash(clamping)
    assert clone(clamping).clamp
    for other in (copy.deepcopy(clamping), pickle.loads(pickle.dumps(clamping))):
        assert other.clamp
        assert joblib.hash(other) == joblib.hash(clamping)
    assert repr(clamping) == (
        "TorchModel(LeNet, input_shape=(1, 28, 28), bounds=(0.0, 1.0), clamp=True)"
    )
    assert "clamp" not in repr(plain)


def fitted(lenet, images, **settings):
    model = TorchModel(lenet, input_shape=(1, 28, 28), **settings)
    featurizer = CurvatureFeaturizer(model, step=0.4, n_boundaries=1, random_state=0)
    guard = GuardedClassifier(model, featurizer=featurizer, target_fpr=0.2)
    return guard.fit(images[0][:12])


def test_files_keep_it(lenet, images, tmp_path):
    pytest.importorskip("skops")
    save(fitted(lenet, images, clamp=True), tmp_path / "guard.skops")
    assert load(tmp_path / "guard.skops", LeNet()).model.clamp


def test_a_calibration_without_it_is_refused(lenet, images):
    state = CurvatureGuard(fitted(lenet, images)).state_dict()
    served = CurvatureGuard(fitted(lenet, images, clamp=True))
    with pytest.raises(ValueError, match="model__clamp"):
        served.load_state_dict(state)


# Without it ---------------------------------------------------------


REMEDY = (
    r"(outside its bounds \(0.1, 0.9\), and not within|gave NaN or inf).*clamp=True"
)


@NETWORKS
def test_without_it_the_error_names_the_remedy(network, inputs):
    with pytest.raises(ValueError, match=REMEDY) as raised:
        find_nearest_boundaries(model_of(network), inputs, n_boundaries=None)
    if network is checked:
        assert "AssertionError (not an image)" in str(raised.value)
        assert isinstance(raised.value.__cause__, AssertionError)
    with pytest.raises(ValueError, match=REMEDY):
        CurvatureFeaturizer(model_of(network)).fit(inputs)


@NETWORKS
def test_so_does_that_of_a_measurement(network, inputs, monkeypatch):
    """When it is fitted, and in the middle of a measurement too."""
    featurizer = CurvatureFeaturizer(model_of(network), step=0.5)
    with pytest.raises(ValueError, match=REMEDY):
        featurizer.fit(inputs)
    monkeypatch.setattr(CurvatureFeaturizer, "_try_signals", lambda *_: None)
    with pytest.raises(ValueError, match=REMEDY):
        featurizer.fit(inputs).transform(inputs)


def test_other_errors_are_raised_as_they_are():
    """Also those met outside the bounds, if they have nothing to do with these."""

    def broken(x):
        raise MemoryError("too much")

    with pytest.raises(MemoryError, match="too much"):
        model_of(broken).logits(torch.full((1, D), 2.0))
    unbounded = TorchModel(Returns(checked), input_shape=(D,), bounds=None)
    with pytest.raises(AssertionError, match="not an image"):
        unbounded.logits(torch.full((1, D), 2.0, dtype=torch.float64))
    with pytest.raises(AssertionError, match="not an image"):
        torch.func.vmap(model_of(lambda x: checked(torch.ones(D)) + x).logits)(
            torch.ones(2, 1, D)
        )


def test_it_is_called_no_more_than_before(lenet):
    model = TorchModel(lenet, input_shape=(1, 28, 28))
    with count_passes(lenet) as passes:
        model.logits(torch.full((3, 1, 28, 28), 2.0))
    assert passes.forward == 3


@pytest.mark.parametrize("clamp", [True, None, 1])
def test_bad_clamp(clamp):
    bounds = None if clamp is True else (0.0, 1.0)
    expected = (
        "clamp=True.*bounds=None" if clamp is True else "clamp must be True, False or"
    )
    with pytest.raises(ValueError, match=expected):
        TorchModel(nn.Identity().eval(), input_shape=(D,), bounds=bounds, clamp=clamp)
