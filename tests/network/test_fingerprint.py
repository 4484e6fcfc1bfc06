"""Two networks share a fingerprint just if they are the same one."""

import contextlib
import copy
import functools
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from pickle import PicklingError

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.network import fingerprint as fingerprint_module
from curvdetect.network import load_exported
from curvdetect.network.fingerprint import changed_by, fingerprint
from curvdetect.storage import transform_in_shards
from curvdetect.study.networks import LeNet, load_lenet
from modules import SmoothNet


class Configured(nn.Module):
    """A linear network with a setting of any kind."""

    def __init__(self, setting=None):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.setting = setting
        self.eval()

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


class Remembers(Configured):
    """Leaves things behind at every call."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.seen = []
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen.append(float(x.detach().sum()))
        self.features = x
        self.total += 1
        return super().forward(x)


def unsortable(value):
    """What joblib 1.6 hashes as empty if an item cannot be pickled or sorted."""
    return OrderedDict([("value", value), (3, "other"), (None, 1)])


def scale(x):
    return 2 * x


def double(x):
    return x + x


# What counts --------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (1, 2),
        (1, 1.0),
        (1, True),
        ("1", 1),
        (None, False),
        ([1, 2], [2, 1]),
        ([1, 2], (1, 2)),
        ([[1], 2], [[1, 2]]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, OrderedDict(a=1)),
        (unsortable(1), unsortable(2)),
        (unsortable(1), OrderedDict()),
        ({1, 2}, {1, 3}),
        (np.arange(3), np.arange(3.0)),
        (torch.zeros(2), torch.zeros(1, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.ones(3, dtype=torch.bfloat16), 2 * torch.ones(3, dtype=torch.bfloat16)),
        (torch.float32, torch.float64),
        (scale, double),
        (lambda x: x + 1, lambda x: x + 2),
        (functools.partial(scale, 1), functools.partial(scale, 2)),
        (Path("a"), Path("b")),
        (nn.ReLU(), nn.GELU()),
        (nn.GELU(), nn.GELU(approximate="tanh")),
        (np.random.default_rng(0), np.random.default_rng(1)),
    ],
)
def test_settings_count(one, another):
    assert fingerprint(Configured(one)) != fingerprint(Configured(another))
    assert fingerprint(Configured(one)) == fingerprint(Configured(one))
    same = copy.deepcopy(one) if not callable(one) else one
    assert fingerprint(Configured(same)) == fingerprint(Configured(one))


def test_weights_buffers_and_their_order_count():
    nets = [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval() for _ in range(4)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    assert len({fingerprint(net) for net in nets}) == 1
    nets[1][0].weight.data[0, 0] += 1
    nets[2][1].running_mean += 1
    nets[3][0], nets[3][1] = nets[3][1], nets[3][0]
    assert len({fingerprint(net) for net in nets}) == 4


def test_mode_device_and_gradients_do_not_count(lenet):
    before = fingerprint(lenet)
    lenet.train().requires_grad_(False)
    assert fingerprint(lenet) == before
    with torch.no_grad():
        lenet.eval()(torch.zeros(1, 1, 28, 28))
    assert fingerprint(lenet) == before


def test_code_counts(tmp_path):
    """The forward of the class, and a function of its file that it calls."""
    text = (
        "import torch\n"
        "def helper(x):\n    return x * {a}\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return helper(x) + {b}\n"
    )
    seen = set()
    for a, b in ((1, 1), (2, 1), (1, 2), (1, 1)):
        namespace = {"__name__": "a_file"}
        exec(text.format(a=a, b=b), namespace)
        seen.add(fingerprint(namespace["Net"]()))
    assert len(seen) == 3


def test_hooks_count_but_not_their_numbers():
    def plain(net, hook):
        net.register_forward_hook(hook)
        return fingerprint(net)

    ids = [plain(Configured(), print_nothing) for _ in range(2)]
    assert ids[0] == ids[1] != fingerprint(Configured())
    assert plain(Configured(), another_nothing) != ids[0]


def print_nothing(module, inputs, output):
    return None


def another_nothing(module, inputs, output):
    return output + 1


# What does not ------------------------------------------------------


def test_what_a_call_leaves_behind():
    net, x = Remembers(), torch.ones(1, 4)
    left = changed_by(net, lambda: net(x))
    assert left == {"": {"calls", "seen", "features", "total"}}
    before = fingerprint(net, without=left)
    net(2 * x)
    assert fingerprint(net, without=left) == before
    net.weight.data += 1
    assert fingerprint(net, without=left) != before


# Everything at once -------------------------------------------------


def exported(module, tmp_path, name):
    program = torch.export.export(
        module, (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(program, tmp_path / name)
    return load_exported(tmp_path / name)


def scripted(module, how):
    example = torch.zeros(1, 4)
    if how == "trace":
        return torch.jit.trace(module, example)
    module = torch.jit.script(module)
    return torch.jit.freeze(module) if how == "freeze" else module


@pytest.mark.parametrize(
    "kind", ["spectral norm", "exported", "script", "trace", "freeze", "ordered dict"]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_networks_of_every_kind_are_told_apart(kind, tmp_path):
    """By joblib's hash, a cache and shards, though they differ in a weight alone."""
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    features, hashes = [], []
    for position, seed in enumerate((0, 1, 0)):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3)).eval()
        if kind == "spectral norm":
            torch.manual_seed(seed)
            spectral_norm(net[0])
            net.eval()
        elif kind == "exported":
            net = exported(net, tmp_path, f"{position}.pt2")
        elif kind == "ordered dict":
            net.settings = unsortable(net[0].weight.detach().clone())
        else:
            net = scripted(net, kind)
        model = TorchModel(net, input_shape=(4,), bounds=None)
        featurizer = CurvatureFeaturizer(
            model, step=0.1, random_state=0, memory=str(tmp_path / "cache")
        ).fit(X)
        features.append(featurizer.transform(X))
        hashes.append(joblib.hash(model))
        if seed == 1:
            with pytest.raises(ValueError, match="those of another network"):
                transform_in_shards(featurizer, X, tmp_path / "shards", verbose=0)
        else:
            shards = transform_in_shards(featurizer, X, tmp_path / "shards", verbose=0)
            np.testing.assert_array_equal(shards, features[-1])
    assert hashes[0] == hashes[2] != hashes[1]
    assert not np.array_equal(features[0], features[1], equal_nan=True)
    np.testing.assert_array_equal(features[0], features[2])


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (threading.Lock(), "lock"),
        ((number for number in range(3)), "generator"),
        ([{"deep": threading.Lock()}], "lock"),
        (OrderedDict(file=sys.__stdout__), "TextIOWrapper"),
    ],
)
def test_what_cannot_be_hashed_is_named(value, what):
    net = nn.Sequential(OrderedDict(first=Configured(value)))
    with pytest.raises(PicklingError, match=rf"Sequential.first.setting.* is a {what}"):
        fingerprint(net)
    model = TorchModel(net.eval(), input_shape=(4,), bounds=None)
    with pytest.raises(PicklingError, match=rf"first.setting.* is a {what}"):
        joblib.hash(CurvatureFeaturizer(model))
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    features = CurvatureFeaturizer(model, step=0.1).fit_transform(X)  # no hash needed
    assert features.shape == (6, 3)


def test_what_is_too_entangled_is_named(monkeypatch):
    """Forty lists, and two to the fortieth ways to reach the last."""
    monkeypatch.setattr(fingerprint_module, "_MOST_PIECES", 10_000)
    entangled = []
    for _ in range(40):
        entangled = [entangled, entangled]
    net = Configured(entangled)
    with pytest.raises(PicklingError, match="setting.* is part of .* too entangled"):
        fingerprint(net)
    assert changed_by(net, lambda: None) == {}


def test_a_graph_is_its_code(monkeypatch):
    """Its nodes know each other: hashed one by one, ten layers took minutes."""
    monkeypatch.setattr(fingerprint_module, "_MOST_PIECES", 10_000)
    layers = [layer for _ in range(20) for layer in (nn.Linear(4, 4), nn.ReLU())]
    traced = torch.fx.symbolic_trace(nn.Sequential(*layers)).eval()
    assert changed_by(traced, lambda: traced(torch.ones(1, 4))) == {}
    pieces = {name for _, name in fingerprint_module._attributes(traced)}
    assert not pieces & {"_graph", "graph", "_codegen"}
    other = torch.fx.symbolic_trace(nn.Sequential(*layers[:-1])).eval()
    assert (
        fingerprint(other) != fingerprint(traced) == fingerprint(copy.deepcopy(traced))
    )


def test_weights_without_values():
    for net in (nn.LazyLinear(3), nn.Linear(3, 3, device="meta")):
        with pytest.raises(PicklingError, match="weight has no values yet"):
            fingerprint(net)


def test_in_another_process_it_is_the_same(tmp_path):
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    with (tmp_path / "model.pickle").open("wb") as file:
        pickle.dump(model, file)
    code = (
        "import joblib, pickle\n"
        "from curvdetect.network.fingerprint import fingerprint\n"
        f"model = pickle.load(open({str(tmp_path / 'model.pickle')!r}, 'rb'))\n"
        "print(fingerprint(model.module), joblib.hash(model))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [fingerprint(model.module), joblib.hash(model)]


def test_a_call_changes_no_hash():
    """Neither through the model nor past it."""
    net = Remembers()
    model = TorchModel(net, input_shape=(4,), bounds=None)
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    before = joblib.hash(model)
    CurvatureFeaturizer(model, step=0.1).fit_transform(X)
    assert joblib.hash(model) == before
    net(torch.ones(2, 4))
    assert joblib.hash(model) == before


@pytest.mark.parametrize("module", [LeNet, SmoothNet, Configured, Remembers])
def test_copies_hash_the_same(module):
    net = module().eval()
    shape = (1, 28, 28) if module is LeNet else (6,) if module is SmoothNet else (4,)
    model = TorchModel(net, input_shape=shape, bounds=None)
    again = pickle.loads(pickle.dumps(model))
    assert joblib.hash(again) == joblib.hash(model)
    assert joblib.hash(copy.deepcopy(model)) == joblib.hash(model)
    twice = pickle.loads(pickle.dumps([model, model]))
    assert twice[0] is twice[1]


# Weights alone ------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.weight.data.add_(1),
        lambda net: setattr(net, "weight", nn.Parameter(2 * net.weight.detach())),
        lambda net: net.load_state_dict({"weight": torch.zeros(3, 4)}),
        lambda net: net.weight.data.mul_(-1),
        lambda net: net.half().float(),
    ],
)
def test_a_digest_of_weights_follows_them(change):
    net = Configured(threading.Lock())  # what cannot be hashed does not matter here
    model = TorchModel(net, input_shape=(4,), bounds=None)
    before = model.weights_digest()
    net(torch.ones(1, 4))
    assert model.weights_digest() == before
    change(net)
    assert model.weights_digest() != before


def test_the_same_values_in_another_format_are_the_same_weights():
    net = Configured()
    model = TorchModel(net, input_shape=(4,), bounds=None)
    before = model.weights_digest()
    net.double()
    assert model.weights_digest() == before


def test_buffers_that_calls_move_are_no_weights():
    net = Remembers()
    model = TorchModel(net, input_shape=(4,), bounds=None)
    before = model.weights_digest()
    net(torch.ones(1, 4))
    assert net.total == 1
    assert model.weights_digest() == before


@contextlib.contextmanager
def _scaled(by):
    yield by


class _Decorated(nn.Linear):
    def __init__(self, decorator):
        super().__init__(2, 2)
        self.before = decorator(torch.relu)


def _wrapping(by):
    return functools.wraps(torch.relu)(lambda x: by * torch.relu(x))


@pytest.mark.parametrize("made", [_scaled, lambda by: lambda f: _wrapping(by)])
def test_what_a_decorator_was_made_with_counts(made):
    """transformers decorates a method by a context manager, a generator that waits."""
    first, second = _Decorated(made(1.0)), _Decorated(made(1.0))
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)
    third = _Decorated(made(2.0))
    third.load_state_dict(first.state_dict())
    assert fingerprint(first) != fingerprint(third)
