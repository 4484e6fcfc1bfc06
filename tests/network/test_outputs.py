"""What modules take and return, in any number format, and what they may write to."""

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.study.networks import LeNet
from modules import Returns, SmoothNet

X = np.random.default_rng(0).uniform(0.1, 0.9, size=(8, 6)).astype(np.float32)
WEIGHT = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 3)))


def logits(x):
    """Three smooth logits, computed in the precision of the weights given."""
    return (x @ WEIGHT.to(x)).sin() + 0.3 * x.square().sum(1, keepdim=True)


def features(module, X=X, **settings):
    model = TorchModel(module, input_shape=X.shape[1:], **settings)
    featurizer = CurvatureFeaturizer(
        model, step=0.2, features=("curvature", "distance"), random_state=0
    )
    return featurizer.fit_transform(X)


EXPECTED = features(Returns(logits), X.astype(np.float64))


# Outputs ------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: {"logits": f, "hidden": f * 2},
        lambda f: OrderedDict(loss=f.sum(), logits=f),
        lambda f: SimpleNamespace(logits=f, hidden=None),
        lambda f: (f, f * 2),
        lambda f: [f],
        lambda f: f[:, :, None, None],
        lambda f: (f[:, None],),
    ],
)
def test_logits_are_found_in_what_is_returned(wrap):
    found = features(Returns(lambda x: wrap(logits(x))))
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda f: f[:, :1], "at least two classes, one logit each; got one"),
        (lambda f: f[:, :, None].repeat(1, 1, 2), r"got \(\d, 3, 2\) for \d samples"),
        (lambda f: f[:, :1, None], r"got \(\d, 1, 1\) for \d samples"),
        (lambda f: f[None], r"got \(1, \d, 3\) for \d samples"),
        (lambda f: f[:, 0], r"got \(\d,\) for \d samples"),
        (lambda f: f[:3], r"got \(3, 3\) for 8 samples"),
        (lambda f: f.argmax(1, keepdim=True) + torch.arange(3), "floating-point"),
        (lambda f: {"scores": f}, r"a dict with \['scores'\]"),
        (lambda f: None, "got NoneType"),
        (lambda f: (), "got tuple"),
        (lambda f: f.detach().numpy(), "got ndarray"),
    ],
)
@pytest.mark.parametrize("use", ["predict", "predict_logits", "as_module"])
def test_other_outputs_are_refused_at_every_call(wrap, message, use):
    """Also where nothing was fitted: predict answered 0 for a single logit."""
    model = TorchModel(Returns(lambda x: wrap(logits(x))), input_shape=(6,))
    call = model.as_module() if use == "as_module" else getattr(model, use)
    with pytest.raises(ValueError, match=message):
        call(torch.from_numpy(X))


# Number formats -----------------------------------------------------


class Mixed(nn.Module):
    """Weights in one format, logits in another."""

    def __init__(self, weights, out):
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.to(weights))
        self.out = out
        self.eval()

    def forward(self, x):
        assert x.dtype == self.weight.dtype
        f = (x @ self.weight).sin() + 0.3 * x.square().sum(1, keepdim=True)
        return f.to(self.out)


@pytest.mark.parametrize(
    ("weights", "out"),
    [
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
        (torch.float64, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float16),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_and_logits_in_any_format(weights, out, dtype):
    coarse = {weights, out} & {torch.float16, torch.bfloat16}
    if coarse:
        with pytest.warns(UserWarning, match="computes in (bfloat16|float16)"):
            found = features(Mixed(weights, out), X.astype(dtype))
    else:
        found = features(Mixed(weights, out), X.astype(dtype))
        # Curvature from logits that are rounded to single precision.
        np.testing.assert_allclose(found, EXPECTED, rtol=1e-3, atol=2e-3)
    assert found.dtype == dtype
    assert np.isfinite(found).sum() == np.isfinite(EXPECTED).sum()


class NoParameters(nn.Module):
    """Weights that are not parameters."""

    def __init__(self, dtype, buffer):
        super().__init__()
        if buffer:
            self.register_buffer("weight", WEIGHT.to(dtype))
        else:
            self.weight = WEIGHT.to(dtype)
        self.eval()

    def forward(self, x):
        return (x @ self.weight).sin() + 0.3 * x.square().sum(1, keepdim=True)


@pytest.mark.parametrize("buffer", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_are_no_parameters(dtype, buffer):
    for X_ in (X, X.astype(np.float64)):
        found = features(NoParameters(dtype, buffer), X_)
        np.testing.assert_allclose(found, EXPECTED, rtol=1e-3, atol=1e-3)


class Autocasts(SmoothNet):
    """Leaves single precision inside, and hides it at the end."""

    def __init__(self):
        super().__init__()
        self.float()

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.layers[:2](x)
        return self.layers[2](hidden.float())


def test_an_autocast_inside_is_said():
    with pytest.warns(UserWarning, match="computes in bfloat16.*no autocast inside"):
        features(Autocasts())


# What went wrong ----------------------------------------------------


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ZeroDivisionError("division by zero"), None),
        (KeyError("label"), None),
        (RuntimeError("CUDA out of memory"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "input_shape="),
        (RuntimeError("expected scalar type Half but found Float"), "module.float()"),
    ],
)
def test_an_error_is_explained_only_where_the_cause_is_likely(error, hint):
    def fail(x):
        raise error

    with pytest.raises(ValueError, match="cannot be called on inputs") as caught:
        TorchModel(Returns(fail), input_shape=(6,)).check(X)
    assert caught.value.__cause__ is error
    text = str(caught.value)
    for advice in ("input_shape=", "module.float()"):
        assert (advice in text) == (advice == hint)


@pytest.mark.parametrize(
    ("mix", "named"),
    [
        (lambda x: logits(x) - logits(x).mean(0), False),
        (nn.BatchNorm1d(6, track_running_stats=False), True),
    ],
)
def test_batch_normalisation_is_blamed_only_where_there_is_one(mix, named):
    net = nn.Sequential(mix if isinstance(mix, nn.Module) else Returns(mix)).eval()
    with pytest.raises(ValueError, match="treat each input for itself") as caught:
        TorchModel(net, input_shape=(6,)).check(X)
    assert ("0 has no running statistics" in str(caught.value)) == named


# What is the caller's -----------------------------------------------


def subtracts(x):
    x -= 0.1
    return logits(x)


def relu_first(x):
    return logits(nn.functional.relu(x.sub_(0.3), inplace=True))


def normalises(x):
    return logits(x.sub_(0.1).div_(0.5))


def fills(x):
    x[:, 0] = 0.5
    return logits(x)


@pytest.mark.filterwarnings("ignore:no boundary was found")
@pytest.mark.parametrize("writes", [subtracts, relu_first, normalises, fills])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nobodys_array_is_written_to(writes, dtype):
    given = X.astype(dtype)
    before = given.copy()
    module = Returns(writes)
    clean = lambda x: writes(x.clone())
    model = TorchModel(module, input_shape=(6,))
    x = torch.from_numpy(given)
    first = model.predict_logits(given)
    np.testing.assert_array_equal(model.predict_logits(given), first)
    model.as_module()(x)
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(model.logits(leaf).sum(), leaf)
    np.testing.assert_allclose(features(module, given), features(Returns(clean), given))
    np.testing.assert_array_equal(given, before)


# Units --------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "mean"),
        ({"mean": 0.5, "std": 127.5}, "std"),
        ({"mean": 0.5, "std": 0.25, "bounds": (0, 1)}, None),
        ({"mean": 127.5, "std": 127.5, "bounds": (0, 255)}, None),
        ({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, None),
        ({"mean": 127.5, "std": 127.5, "bounds": None}, None),
    ],
)
def test_mean_and_std_in_other_units(settings, warned, recwarn):
    TorchModel(nn.Identity().eval(), input_shape=(3, 2, 2), **settings)
    said = [str(w.message) for w in recwarn if "does not belong" in str(w.message)]
    assert bool(said) == (warned is not None)
    if warned:
        assert said[0].startswith(f"{warned}=")
        assert "Divide by 255" in said[0]
        assert recwarn[0].filename == __file__


# TorchScript --------------------------------------------------------


@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript(how, images):
    torch.manual_seed(0)
    net = LeNet().eval()
    example = torch.zeros(1, 1, 28, 28)
    module = {
        "script": lambda: torch.jit.script(net),
        "trace": lambda: torch.jit.trace(net, example),
        "freeze": lambda: torch.jit.freeze(torch.jit.script(net)),
    }[how]()
    found = features(module, images[0][:5])
    expected = features(net, images[0][:5])
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)
