"""A network is left as it was, whatever it is and whoever calls it."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.network import find_nearest_boundaries
from modules import SmoothNet

X = np.random.default_rng(0).normal(size=(6, 6))


def state_of(module):
    """Everything that a user could miss, by value."""
    found = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if not name.startswith("_"):
                found[path, name] = copy.deepcopy(value)
        for name, value in part._buffers.items():
            found[path, name] = value.clone()
    for name, parameter in module.named_parameters():
        found[name] = (parameter.detach().clone(), parameter.requires_grad)
        found[name, "grad"] = parameter.grad
    return found


def assert_same(now, before):
    assert now.keys() == before.keys()
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(now[name], value), name
        elif isinstance(value, tuple):
            assert torch.equal(now[name][0], value[0])
            assert now[name][1] == value[1]
        else:
            assert now[name] == value, name


class Moves(SmoothNet):
    """Changes everything it can at every call, also in eval mode."""

    def __init__(self, fails=False):
        super().__init__()
        self.calls, self.seen, self.by_size = 0, [], {}
        self.fails = fails
        self.register_buffer("in_place", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("replaced", torch.zeros(2, dtype=torch.float64))
        self.norm = nn.BatchNorm1d(6, dtype=torch.float64)
        self.layers[0].weight.requires_grad_(False)

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        self.by_size[len(x)] = self.calls
        self.in_place += 1
        self.replaced = self.replaced + 1
        self.features = x.detach()
        self.register_buffer("late", torch.ones(1))
        if self.fails and self.calls > 4:
            raise MemoryError("too much")
        torch.rand(3)
        return super().forward(self.norm(x))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.filterwarnings("ignore:module is in training mode")
def test_its_state_is_what_it_was(fails, mode):
    net = Moves(fails).train(mode)
    net.layers[2].eval()
    net(torch.from_numpy(X[:2]))  # buffers that a call makes are there by now
    before, random = state_of(net), torch.random.get_rng_state()
    model = TorchModel(net, input_shape=(6,), bounds=None)
    featurizer = CurvatureFeaturizer(model, step=0.1, random_state=0)
    for n_calls, use in (
        (1, lambda: model.predict(X)),
        (9, lambda: find_nearest_boundaries(model, X)),
        (9, lambda: featurizer.fit_transform(X)),
        (1, lambda: model.as_module()(torch.from_numpy(X))),
    ):
        if fails and n_calls > 1:  # it fails at the fourth
            with pytest.raises(MemoryError, match="too much"):
                use()
        else:
            use()
        assert_same(state_of(net), before)
        assert torch.equal(torch.random.get_rng_state(), random)


def test_what_a_call_adds_is_taken_away():
    net = Moves()
    before = state_of(net)
    TorchModel(net, input_shape=(6,), bounds=None).predict(X)
    assert_same(state_of(net), before)
    assert not hasattr(net, "features")
    assert not hasattr(net, "late")


@pytest.mark.parametrize("wrapped", ["the same", "around it", "a part of it"])
def test_threads_with_wrappers_of_one_network_take_turns(wrapped):
    """Each would otherwise restore what the other had set for a while."""
    net = SmoothNet()
    net.train()
    whole = {
        "the same": net,
        "around it": nn.Sequential(net).train(),
        "a part of it": nn.Sequential(nn.Identity(), net).train(),
    }[wrapped]
    other = whole[1] if wrapped == "a part of it" else net
    with pytest.warns(UserWarning, match="training mode"):
        models = [
            TorchModel(module, input_shape=(6,), bounds=None)
            for module in (whole, other)
        ]
    expected = models[0].predict_logits(X)
    wrong = []

    def work(model):
        for _ in range(60):
            with model.evaluating():
                if net.training or any(p.requires_grad for p in net.parameters()):
                    wrong.append("seen in another's state")
            if not np.array_equal(model.predict_logits(X), expected):
                wrong.append("other logits")

    threads = [threading.Thread(target=work, args=(model,)) for model in models * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


# Weights that cannot be used ----------------------------------------


def test_weights_of_inference_mode_are_refused_and_left():
    with torch.inference_mode():
        net = SmoothNet()
    needs = [p.requires_grad for p in net.parameters()]
    with pytest.raises(ValueError, match=r"layers.0.weight was made in inference mode"):
        TorchModel(net, input_shape=(6,))
    assert [p.requires_grad for p in net.parameters()] == needs


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.LazyLinear(3)).eval(), "0.weight has no shape yet"),
        (nn.Linear(6, 3, device="meta").eval(), "weight is on the meta device"),
        (nn.Sequential(nn.LazyBatchNorm1d()).eval(), "0.weight has no shape yet"),
    ],
)
def test_weights_without_values_are_refused(net, message):
    with pytest.raises(ValueError, match=message):
        TorchModel(net, input_shape=(6,))


# Copies of the network as a module ----------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy])
def test_a_copy_of_as_module_calls_its_own_weights(copied):
    model = TorchModel(SmoothNet(), input_shape=(6,), bounds=None, mean=0.1)
    x = torch.from_numpy(X)
    plain = model.as_module()
    again = copied(plain)
    state = {k: torch.zeros_like(v) for k, v in plain.state_dict().items()}
    before = plain(x)
    again.load_state_dict(state)
    assert not again(x).any()
    if copied is copy.deepcopy:
        assert torch.equal(plain(x), before)


# What is compiled inside --------------------------------------------


def compiled_whole(net):
    net.compile(backend="eager")
    return net


def compiled_part(net):
    net.layers[0] = torch.compile(net.layers[0], backend="eager")
    return net


def compiled_outside(net):
    return torch.compile(net, backend="eager")


def in_parallel(net):
    return nn.DataParallel(torch.compile(net, backend="eager")).eval()


@pytest.mark.parametrize(
    "compiled", [compiled_whole, compiled_part, compiled_outside, in_parallel]
)
def test_compiled_networks_are_measured_as_they_were_before(compiled):
    plain = TorchModel(SmoothNet(), input_shape=(6,), bounds=None)
    settings = {"step": 0.1, "random_state": 0}
    expected = CurvatureFeaturizer(plain, **settings).fit_transform(X)
    net = SmoothNet()
    net.load_state_dict(plain.module.state_dict())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = TorchModel(compiled(net), input_shape=(6,), bounds=None)
    found = CurvatureFeaturizer(model, **settings).fit_transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-12, equal_nan=True)
    assert not torch._dynamo.utils.counters["frames"][
        "total"
    ]  # nothing was compiled on the way
