import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

import curvdetect
from curvdetect import CurvatureFeaturizer, TorchModel
from curvdetect.geometry import margin_gradient
from curvdetect.study.networks import LeNet, load_lenet
from modules import AnyWidth, Returns, SmoothNet


def linear(n_inputs=4, n_classes=3):
    return nn.Linear(n_inputs, n_classes).eval()


# What it computes ---------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", ["float32", "float64", "tensor"])
def test_logits_are_those_of_the_module(model, images, flat, kind):
    X = images[0].reshape(len(images[0]), -1) if flat else images[0]
    X = torch.from_numpy(X) if kind == "tensor" else X.astype(kind)
    with torch.no_grad():
        expected = model.module(torch.from_numpy(images[0])).numpy()
    np.testing.assert_allclose(model.predict_logits(X), expected, atol=1e-4)
    np.testing.assert_array_equal(model.predict(X), expected.argmax(1))
    assert model.n_classes == 10


def test_normalisation_is_part_of_the_model():
    module = linear(3)
    X = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    model = TorchModel(module, input_shape=(3,), mean=(0.1, 0.2, 0.3), std=0.5)
    with torch.no_grad():
        x = (torch.from_numpy(X) - torch.tensor([0.1, 0.2, 0.3])) / 0.5
        expected = module(x).numpy()
    np.testing.assert_allclose(model.predict_logits(X), expected, rtol=1e-5)
    with torch.no_grad():
        through = model.as_module()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(through, expected, rtol=1e-5)


def test_normalisation_is_per_channel():
    module = Returns(lambda x: x.mean(dim=(2, 3)))
    model = TorchModel(module, input_shape=(2, 4, 4), mean=(0.0, 0.5))
    logits = model.predict_logits(np.full((1, 2, 4, 4), 0.5, dtype=np.float32))
    np.testing.assert_allclose(logits, [[0.5, 0.0]])


@pytest.mark.parametrize("batch_size", [1, 7, 1000, None])
def test_batch_size_does_not_matter(lenet, images, batch_size):
    model = TorchModel(lenet, input_shape=(1, 28, 28), batch_size=batch_size)
    expected = TorchModel(lenet, input_shape=(1, 28, 28)).predict_logits(images[0])
    np.testing.assert_allclose(model.predict_logits(images[0]), expected, atol=1e-4)


def test_default_batch_size_follows_the_activations():
    small = TorchModel(LeNet().eval(), input_shape=(1, 28, 28))
    big = TorchModel(
        nn.Sequential(
            nn.Conv2d(1, 1024, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ).eval(),
        input_shape=(1, 28, 28),
    )
    blank = torch.zeros(1, 1, 28, 28)
    assert small.rows_per_batch(blank) == 128
    assert 16 <= big.rows_per_batch(blank) < 64


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X[::-1][::-1],
        lambda X: X.astype(">f4"),
        lambda X: np.asfortranarray(X),
        lambda X: X.tolist(),
    ],
    ids=["strides", "byte order", "Fortran order", "list"],
)
def test_unusual_arrays(model, images, change):
    X = images[0][:3]
    np.testing.assert_allclose(
        model.predict_logits(change(X)), model.predict_logits(X), atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64, bool])
def test_whole_numbers(model, dtype):
    X = np.eye(2, 784).astype(dtype)
    expected = model.predict_logits(np.eye(2, 784))
    np.testing.assert_allclose(model.predict_logits(X), expected, atol=1e-5)


def test_half_precision_is_pointed_out():
    model = TorchModel(linear().to(torch.bfloat16), input_shape=(4,))
    assert model.predict_logits(np.zeros((2, 4))).dtype == np.float32
    with pytest.warns(UserWarning, match="mostly rounding"):
        model.check(np.zeros((2, 4)))


def test_no_images_at_all(model):
    assert model.predict_logits(np.empty((0, 1, 28, 28))).shape == (0, 10)


def test_double_precision_modules_compute_in_double_precision():
    model = TorchModel(SmoothNet(), input_shape=(6,), bounds=None)
    X = np.full((2, 6), 1 / 3, dtype=np.float32)
    found = model.predict_logits(X)
    assert found.dtype == np.float64
    exact = model.module(torch.from_numpy(X).double()).detach()
    np.testing.assert_allclose(found, exact, rtol=1e-14)


# What it leaves alone -----------------------------------------------


class Dropping(nn.Module):
    """A network with every kind of state that a call could change."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )
        self.layers[0].weight.requires_grad_(False)
        self.layers[1].eval()

    def forward(self, x):
        if x.max() > 0.99:
            raise RuntimeError("too bright")
        return self.layers(x)


def state_of(module):
    return (
        [m.training for m in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [p.grad for p in module.parameters()],
        {k: v.clone() for k, v in module.state_dict().items()},
        torch.get_rng_state(),
    )


@pytest.mark.filterwarnings("ignore:module is in training mode")
@pytest.mark.parametrize("brightness", [0.5, 1.0], ids=["works", "raises"])
def test_state_is_restored(brightness):
    module = Dropping()
    before = state_of(module)
    model = TorchModel(module, input_shape=(4,))
    assert not model.as_module().training
    X = np.full((3, 4), brightness, dtype=np.float32)
    if brightness == 1.0:
        with pytest.raises(RuntimeError, match="too bright"):
            model.predict(X)
    else:
        model.predict(X)
        x = torch.from_numpy(X)
        margin_gradient(model.margin(torch.zeros(3).long(), torch.ones(3).long()), x)
    for was, now in zip(before, state_of(module), strict=True):
        if isinstance(was, dict):
            assert all(torch.equal(was[k], now[k]) for k in was)
        elif isinstance(was, torch.Tensor):
            assert torch.equal(was, now)
        else:
            assert was == now


@pytest.mark.filterwarnings("ignore:module is in training mode")
def test_it_works_under_no_grad_and_inference_mode(images):
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            x = torch.from_numpy(images[0][:2])
            margin = model.margin(torch.tensor([0, 0]), torch.tensor([1, 1]))
            with model.evaluating():
                assert margin_gradient(margin, x).abs().sum() > 0


@pytest.mark.filterwarnings("ignore:module is in training mode")
def test_threads_that_share_a_model_do_not_disturb_each_other():
    module = Dropping()
    model = TorchModel(module, input_shape=(4,))
    X = np.random.default_rng(0).random((64, 4), dtype=np.float32) * 0.9
    expected = model.predict_logits(X)
    wrong = []

    def work():
        for _ in range(50):
            if not np.allclose(model.predict_logits(X), expected, atol=1e-5):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert module.training


class Looks:
    """Looks for the parts of a module when it is thrown away, as a thread may."""

    def __init__(self, module, found):
        self.look = lambda: found.append("_modules" in vars(module))

    def __del__(self):
        self.look()


@pytest.mark.parametrize("is_new", [True, False])
def test_a_module_is_whole_while_it_is_put_back(is_new):
    """Attributes that a forward pass adds or replaces are thrown away then."""
    found = []

    class Setting(torch.nn.Module):
        def forward(self, x):
            self.looks = Looks(self, found)
            return 2 * x

    module = Setting().eval()
    if not is_new:
        module.looks = None
    TorchModel(module, input_shape=(4,)).predict_logits(np.zeros((2, 4)))
    assert set(found) == {True}
    assert getattr(module, "looks", None) is None


@pytest.mark.filterwarnings("ignore:module is in training mode")
def test_wrappers_of_one_module_do_not_interleave():
    module = Dropping()
    one, two = (TorchModel(module, input_shape=(4,)) for _ in range(2))
    entered, leave = threading.Event(), threading.Event()
    modes = []

    def hold():
        with one.evaluating():
            entered.set()
            leave.wait()
            modes.append(module.training)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    other = threading.Thread(target=two.predict, args=[np.zeros((2, 4))])
    other.start()  # waits for its turn
    leave.set()
    thread.join()
    other.join()
    assert modes == [False]
    assert module.training


@pytest.mark.filterwarnings("ignore:module is in training mode")
def test_attacks_that_switch_modes_do_not_reach_the_module():
    module = Dropping()
    wrapper = TorchModel(module, input_shape=(4,)).as_module()
    wrapper.eval()
    assert module.training
    wrapper.train()
    assert not module.layers[1].training


def test_autocast_around_it_changes_nothing(model, images):
    expected = model.predict_logits(images[0][:3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(model.predict_logits(images[0][:3]), expected)


# Copies -------------------------------------------------------------


def test_clone_shares_it(model):
    assert clone(model) is model


@pytest.mark.parametrize(
    "copy_it", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_compute_and_hash_the_same(model, images, copy_it):
    other = copy_it(model)
    assert other.module is not model.module
    assert joblib.hash(other) == joblib.hash(model)
    np.testing.assert_allclose(
        other.predict_logits(images[0]), model.predict_logits(images[0]), atol=1e-5
    )
    assert joblib.hash(other) == joblib.hash(model)  # using it changes nothing


def test_hash_changes_with_a_weight_and_with_a_setting(model, lenet):
    before = joblib.hash(model)
    assert joblib.hash(TorchModel(lenet, input_shape=(1, 28, 28), std=2.0)) != before
    with torch.no_grad():
        lenet.classifier[1].bias[0] += 1e-3
    assert joblib.hash(model) != before


def test_hash_is_the_same_in_another_process(model):
    code = (
        "import joblib; from curvdetect import TorchModel; "
        "from curvdetect.study.networks import load_lenet; "
        "print(joblib.hash(TorchModel(load_lenet('fashion-mnist'), "
        "input_shape=(1, 28, 28))))"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {joblib.hash(model)}


def test_unusual_tensors_survive_a_pickle():
    module = nn.Linear(3, 2).to(torch.bfloat16).eval()
    module.register_buffer("count", torch.tensor(3))
    module.scale = torch.tensor([2.0])  # neither parameter nor buffer
    module.tied = module.weight
    other = pickle.loads(pickle.dumps(TorchModel(module, input_shape=(3,)))).module
    torch.testing.assert_close(other.weight, module.weight)
    assert other.weight.dtype == torch.bfloat16
    assert other.count.item() == 3
    assert other.scale.item() == 2.0
    assert other.tied is other.weight
    assert other.weight.requires_grad


def test_the_hash_is_the_same_while_another_thread_computes(model):
    before = joblib.hash(model)
    with model.evaluating():
        assert joblib.hash(model) == before
        copied = pickle.loads(pickle.dumps(model))
    assert all(p.requires_grad for p in copied.module.parameters())


def test_a_compiled_module_is_used_as_it_was_before(lenet, images):
    """Compiled, it takes one backward pass at a time, and may give wrong curvatures."""
    compiled = TorchModel(torch.compile(lenet), input_shape=(1, 28, 28))
    assert compiled.module is lenet
    featurizer = CurvatureFeaturizer(torch.compile(lenet), step=0.4, random_state=0)
    found = featurizer.fit(images[0][:5]).transform(images[0][:5])
    featurizer = CurvatureFeaturizer(lenet, step=0.4, random_state=0)
    expected = featurizer.fit(images[0][:5]).transform(images[0][:5])
    np.testing.assert_array_equal(found, expected)
    assert joblib.hash(compiled) == joblib.hash(
        TorchModel(lenet, input_shape=(1, 28, 28))
    )


# Errors -------------------------------------------------------------


def test_training_mode_is_pointed_out():
    with pytest.warns(UserWarning, match="training mode"):
        TorchModel(nn.Linear(4, 3), input_shape=(4,))


def test_probabilities_are_pointed_out():
    model = TorchModel(Returns(lambda x: x.softmax(1)), input_shape=(4,))
    with pytest.warns(UserWarning, match="probabilities"):
        model.check(np.zeros((2, 4)))


def test_bounds_can_be_switched_off():
    module, X = linear(), np.full((2, 4), 1000.0, np.float32)
    expected = module(torch.from_numpy(X)).detach()
    found = TorchModel(module, input_shape=(4,), bounds=None).predict_logits(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="bounds=None switches"):
        TorchModel(module, input_shape=(4,)).predict(X)


def test_any_shape_needs_an_input_before_the_classes_are_known():
    model = TorchModel(AnyWidth().eval(), input_shape=None)
    with pytest.raises(ValueError, match="call check"):
        _ = model.n_classes
    model.check(np.zeros((2, 5)))
    assert model.n_classes == 3


def test_weights_are_loaded_without_unpickling_code():
    package = Path(curvdetect.__file__).parent
    sources = [p.read_text() for p in package.rglob("*.py")]
    loads = [line for s in sources for line in s.splitlines() if "torch.load(" in line]
    assert loads
    assert all("weights_only=True" in line for line in loads)


def test_normalising_keeps_nothing_from_a_call_that_was_traced(lenet):
    """Neither an export nor inference mode may spoil the calls that follow."""
    model = TorchModel(lenet, input_shape=(1, 28, 28), mean=0.2, std=1.1)
    x = torch.rand(2, 1, 28, 28)
    expected = model.predict_logits(x)
    torch.export.export(model.as_module(), (x,), strict=False)
    with model.evaluating(), torch.inference_mode():
        model.logits(x)
    np.testing.assert_array_equal(model.predict_logits(x), expected)
    leaf = x.requires_grad_()
    assert torch.autograd.grad(model.logits(leaf).sum(), leaf)[0].any()


def test_exported_programs_are_taken_as_they_are(lenet, images):
    """The program itself, or its module, whose mode torch refuses to change."""
    program = torch.export.export(
        lenet,
        (torch.zeros(2, 1, 28, 28),),
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )
    expected = TorchModel(lenet, input_shape=(1, 28, 28)).predict_logits(images[0])
    for network in (program, program.module()):
        model = TorchModel(network, input_shape=(1, 28, 28))
        np.testing.assert_allclose(
            model.predict_logits(images[0]), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "mps", "xpu"])
def test_a_device_that_is_not_there(lenet, device):
    with pytest.raises(ValueError, match=f"device must be one .* got '{device}'"):
        TorchModel(lenet, input_shape=(1, 28, 28), device=device)
    assert next(lenet.parameters()).device.type == "cpu"
