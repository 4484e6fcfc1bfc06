"""Random small networks: features are those of a float64 reference, nothing changes."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curvdetect import CurvatureFeaturizer, TorchModel

D, WIDTH, N_CLASSES = 6, 5, 3
STEP = 0.5

ACTIVATIONS = [
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.LeakyReLU(0.1, inplace=True),
    lambda: nn.ELU(inplace=True),
    nn.GELU,
    lambda: nn.SiLU(inplace=True),
    lambda: nn.Hardswish(inplace=True),
    nn.Softplus,
    nn.Tanh,
    nn.Identity,
]
NORMALISATIONS = [
    lambda: nn.LayerNorm(WIDTH),
    lambda: nn.BatchNorm1d(WIDTH),
    lambda: nn.GroupNorm(1, WIDTH),
    lambda: nn.Dropout(0.5),
    nn.Identity,
]
OUTPUTS = [
    lambda f: f,
    lambda f: {"logits": f},
    lambda f: (f, None),
    lambda f: f.double(),
]


def shifts_in_place(module, inputs):
    inputs[0].add_(0.1)


def remembers(module, inputs, output):
    module.seen = output


def doubles(module, inputs, output):
    return 2 * output


class Network(nn.Module):
    """One hidden layer out of everything."""

    def __init__(self, activation, normalisation, output, hooks, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(D, WIDTH)
        self.normalisation, self.activation = normalisation(), activation()
        self.last = nn.Linear(WIDTH, N_CLASSES)
        self.output, self.calls = output, 0
        for part in self.normalisation.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
        if "pre" in hooks:
            self.first.register_forward_pre_hook(shifts_in_place)
        if "keeps" in hooks:
            self.activation.register_forward_hook(remembers)
        if "doubles" in hooks:
            self.last.register_forward_hook(doubles)

    def forward(self, x):
        self.calls += 1
        hidden = self.activation(self.normalisation(self.first(x)))
        return self.output(self.last(hidden))


def reference(module, X, directions):
    """Curvature at the image, mean decrease and logits, in float64, by their formulas.

    One class and one direction at a time; no part of the package is called.
    """
    exact = copy.deepcopy(module).double().eval().requires_grad_(False)

    def logits(x):
        f = exact(x.clone())
        f = f["logits"] if isinstance(f, dict) else f[0] if isinstance(f, tuple) else f
        return f.double()

    out = np.full((len(X), 3, N_CLASSES), np.nan)
    for x, row in zip(torch.from_numpy(X.astype(np.float64)), out, strict=True):
        f = logits(x[None])[0]
        i = int(f.argmax())
        row[2] = f - f[i]
        for j in {*range(N_CLASSES)} - {i}:
            leaf = x[None].clone().requires_grad_()
            margins = logits(leaf)[0]
            (g,) = torch.autograd.grad(margins[i] - margins[j], leaf)
            slope = float(g.norm())
            n = g[0] / slope
            bent, fallen = [], []
            for u in torch.from_numpy(directions.astype(np.float64)):
                v = u - (u @ n) * n
                v = v / v.norm()
                for way, values in ((v, bent), (u, fallen)):
                    points = torch.stack([x + STEP * way, x - STEP * way])
                    F = logits(points)[:, i] - logits(points)[:, j]
                    values.append(float(F.sum() - 2 * (f[i] - f[j])))
            row[0, j] = -np.mean(bent) / STEP**2 / slope if slope > 1e-3 else np.inf
            row[1, j] = -np.mean(fallen) / 2
    return out


def state_of(module):
    return {
        **{name: value.clone() for name, value in module.state_dict().items()},
        "calls": module.calls,
        "modes": [part.training for part in module.modules()],
        "needs": [p.requires_grad for p in module.parameters()],
        "grads": [p.grad for p in module.parameters()],
        "seen": hasattr(module.activation, "seen"),
    }


def assert_same(now, before):
    assert now.keys() == before.keys()
    for name, value in before.items():
        same = torch.equal(now[name], value) if torch.is_tensor(value) else None
        assert same or now[name] == value, name


@pytest.mark.filterwarnings("ignore:module is in training mode")
@pytest.mark.filterwarnings("ignore:no boundary was found")
@settings(max_examples=60)
@given(
    activation=st.sampled_from(ACTIVATIONS),
    normalisation=st.sampled_from(NORMALISATIONS),
    output=st.sampled_from(OUTPUTS),
    hooks=st.sets(st.sampled_from(["pre", "keeps", "doubles"])),
    double=st.booleans(),
    images=st.sampled_from([np.float32, np.float64]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_features_of_any_network(
    activation, normalisation, output, hooks, double, images, training, seed
):
    module = Network(activation, normalisation, output, hooks, seed).train(training)
    if double:
        module.double()
    X = np.random.default_rng(seed).uniform(0.2, 0.8, (4, D)).astype(images)
    before, given_images = state_of(module), X.copy()
    featurizer = CurvatureFeaturizer(
        TorchModel(module, input_shape=(D,)),
        at="input",
        features=("curvature", "laplacian", "logits"),
        step=STEP,
        n_directions=3,
        random_state=0,
    ).fit(X)
    F = featurizer.transform(X).reshape(4, 3, N_CLASSES)
    expected = reference(module, X, featurizer.directions_)
    exact = double and images == np.float64
    flat = ~np.isfinite(expected) | ~np.isfinite(F)
    assert (flat == np.isnan(F) | np.isinf(expected)).all()
    tolerance = 1e-8 if exact else 2e-3
    error = np.abs(F - expected)[~flat]
    assert (error <= tolerance * (1 + np.abs(expected[~flat]))).all()
    assert_same(state_of(module), before)
    np.testing.assert_array_equal(X, given_images)


@settings(max_examples=20)
@given(
    activation=st.sampled_from(ACTIVATIONS),
    hooks=st.sets(st.sampled_from(["pre", "keeps", "doubles"])),
    fails_at=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_nothing_changes_where_a_call_fails(activation, hooks, fails_at, seed):
    module = Network(activation, nn.Identity, OUTPUTS[0], hooks, seed).eval()
    X = np.random.default_rng(seed).uniform(0.2, 0.8, (4, D)).astype(np.float32)
    before, n_calls = state_of(module), 0

    def fails(*_):
        nonlocal n_calls
        n_calls += 1
        if n_calls == fails_at:
            raise ZeroDivisionError("on purpose")

    handle = module.last.register_forward_pre_hook(fails)
    featurizer = CurvatureFeaturizer(
        TorchModel(module, input_shape=(D,)), step=STEP, random_state=0
    )
    with pytest.raises((ZeroDivisionError, ValueError), match="on purpose"):
        featurizer.fit(X)
    handle.remove()
    assert_same(state_of(module), before)
