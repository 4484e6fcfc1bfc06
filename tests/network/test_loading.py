"""Networks from files: weights in whatever wrapping, and exported programs."""

import sys
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.optim.swa_utils import AveragedModel

from curvdetect.network import load_exported, load_module
from curvdetect.network.exported import as_exported_module
from curvdetect.network.weights import load_weights


def network(seed=0, classes=3):
    torch.manual_seed(seed)
    parts = {
        "conv": nn.Conv2d(1, 2, 3),
        "norm": nn.BatchNorm2d(2),
        "flat": nn.Flatten(),
        "fc": nn.Linear(8, classes),
    }
    return nn.Sequential(OrderedDict(parts)).eval()


GOOD = network(1).state_dict()
OTHER = network(2).state_dict()


def called(prefix, weights=GOOD):
    return {prefix + name: value for name, value in weights.items()}


def optimiser():
    net = network(3)
    adam = torch.optim.Adam(net.parameters())
    net(torch.zeros(2, 1, 4, 4)).sum().backward()
    adam.step()
    return adam.state_dict()


def with_parts_compiled():
    return {name.replace("conv.", "conv._orig_mod."): w for name, w in GOOD.items()}


def averaged():
    net = network(1)
    return AveragedModel(net).state_dict()


def without_counters(weights):
    return {n: w for n, w in weights.items() if not n.endswith("num_batches_tracked")}


ONE_SET = {
    "bare": GOOD,
    "model_state_dict": {
        "model_state_dict": GOOD,
        "optimizer_state_dict": optimiser(),
        "epoch": 3,
        "loss": torch.tensor(0.1),
    },
    "net": {"net": GOOD, "acc": 0.9},
    "state_dict_ema": {"state_dict_ema": GOOD, "args": {"lr": 0.1}},
    "ema of DataParallel": {"ema": called("module.")},
    "nested": {"checkpoint": {"model": {"state_dict": GOOD}, "epoch": 1}},
    "DataParallel": called("module."),
    "compiled": called("_orig_mod."),
    "compiled DataParallel": called("module._orig_mod."),
    "a part compiled": with_parts_compiled(),
    "Lightning": {
        "state_dict": {**called("model."), "criterion.weight": torch.ones(3)},
        "pytorch-lightning_version": "2",
    },
    "an average": {"model_ema": averaged()},
    "old, without counters": {"state_dict": without_counters(called("module."))},
    "under any name": {"teacher": called("backbone.encoder.")},
}


@pytest.mark.parametrize("case", ONE_SET)
def test_what_can_only_be_meant_is_loaded(case, tmp_path):
    torch.save(ONE_SET[case], tmp_path / "w.pt")
    net = load_module("test_loading:network", tmp_path / "w.pt")
    assert not net.training
    x = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(net(x), network(1)(x), rtol=0, atol=0)


class Compiled(nn.Module):
    """Has its network where torch.compile puts it, and takes no time to make."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net


@pytest.mark.parametrize("wrap", [nn.DataParallel, Compiled])
def test_the_network_may_be_wrapped_too(wrap, tmp_path):
    torch.save(GOOD, tmp_path / "w.pt")
    inner = network()
    load_weights(wrap(inner), tmp_path / "w.pt")
    assert all(map(torch.equal, inner.state_dict().values(), GOOD.values()))


NOT_ONE_SET = {
    "state_dict and model": (
        {"state_dict": GOOD, "model": OTHER},
        "more than one set .* 'state_dict', 'model': choose by weights_key",
    ),
    "weights and their average": (
        {"state_dict": GOOD, "state_dict_ema": OTHER, "epoch": 1},
        "'state_dict', 'state_dict_ema': choose by weights_key",
    ),
    "student and teacher": (
        {"state_dict": {**called("student."), **called("teacher.", OTHER)}},
        "'state_dict.student', 'state_dict.teacher': choose",
    ),
    "at the top and below": ({**GOOD, "ema": OTHER}, "'', 'ema': choose"),
    "other sizes": (
        {"state_dict": GOOD, "model": network(classes=5).state_dict()},
        "'state_dict', 'model': choose",
    ),
    "a part of a network": (
        {**called("encoder."), "head.weight": torch.ones(2)},
        "beside 'encoder', which fits the network: 'head.weight'",
    ),
    "twice": ({**GOOD, **called("module.", OTHER)}, "'conv.weight' twice"),
    "too much": (
        {**GOOD, "more.weight": torch.ones(2)},
        "do not fit the network: .* has 'more.weight', which it lacks",
    ),
    "too little": (
        {"net": {n: w for n, w in GOOD.items() if n != "fc.bias"}},
        "do not fit the network: .* lacks 'net.fc.bias'",
    ),
    "another shape": (
        {**GOOD, "fc.weight": torch.ones(4, 8)},
        r"do not fit the network: .*size mismatch for fc.weight.*\[3, 8\]",
    ),
    "an optimiser alone": ({"optimizer": optimiser()}, "must hold a state dict; got"),
    "a number": (3, "must hold a state dict; got a int"),
    "a module": (network(), r"torch.save\(net.state_dict\(\), path\).*safe_globals"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "is a pointer of git-lfs, not the file itself",
    ),
    "a page": (b"<!DOCTYPE html><title>Too many downloads", "is a web page"),
}


def write(content, path):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("case", NOT_ONE_SET)
def test_all_else_is_an_error_and_changes_nothing(case, tmp_path):
    content, message = NOT_ONE_SET[case]
    net = network()
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(net, write(content, tmp_path / "w.pt"))
    assert "\n" not in str(caught.value)
    before = network().state_dict()
    assert all(map(torch.equal, net.state_dict().values(), before.values()))


@pytest.mark.parametrize(
    ("case", "key", "expected"),
    [
        ("state_dict and model", "state_dict", GOOD),
        ("state_dict and model", "model", OTHER),
        ("weights and their average", "state_dict_ema", OTHER),
        ("student and teacher", "teacher", OTHER),
        ("student and teacher", "state_dict.student", GOOD),
        ("at the top and below", "", GOOD),
        ("at the top and below", "ema", OTHER),
        ("a part of a network", "encoder", GOOD),
    ],
)
def test_a_key_chooses(case, key, expected, tmp_path):
    net = network()
    load_weights(net, write(NOT_ONE_SET[case][0], tmp_path / "w.pt"), key=key)
    assert all(map(torch.equal, net.state_dict().values(), expected.values()))


@pytest.mark.parametrize(
    ("case", "key", "message"),
    [
        ("state_dict and model", "nothing", "those of 'state_dict', 'model' .*got 'no"),
        ("student and teacher", "state_dict", "more than one set"),
        ("too much", "", "has 'more.weight'"),
    ],
)
def test_a_key_that_does_not(case, key, message, tmp_path):
    path = write(NOT_ONE_SET[case][0], tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        load_weights(network(), path, key=key)


def test_a_key_needs_weights():
    with pytest.raises(ValueError, match="weights_key needs weights; got 'ema' alone"):
        load_module("test_loading:network", weights_key="ema")


def test_a_network_without_values_takes_no_weights(tmp_path):
    torch.save(GOOD, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="a device that holds values"):
        load_weights(network().to("meta"), tmp_path / "w.pt")


# safetensors -----------------------------------------------------------


@pytest.mark.parametrize("name", ["w.safetensors", "blob"])
def test_safetensors(name, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(called("module."), tmp_path / name)
    net = load_module("test_loading:network", tmp_path / name)
    assert all(map(torch.equal, net.state_dict().values(), GOOD.values()))


@pytest.mark.parametrize("name", ["w.safetensors", "blob"])
def test_without_safetensors_the_extra_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    header = b'{"conv.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportError, match=r"pip install 'curvdetect\[safetensors\]'"):
        load_weights(network(), tmp_path / name)


def test_a_broken_safetensors_file(tmp_path):
    pytest.importorskip("safetensors.torch")
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read: .*header"):
        load_weights(network(), tmp_path / "w.safetensors")


# Exported programs -----------------------------------------------------


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


def exported(batch, module=None, size=5):
    example = torch.zeros(8, 4) if module is None else torch.zeros(8, 1, 4, 4)
    return torch.export.export(
        module or Double(), (example,), dynamic_shapes=({0: batch},)
    )


def shares_its_size():
    size = Dim("n", min=2)
    return torch.export.export(
        Double(), (torch.zeros(8, 8),), dynamic_shapes=({0: size, 1: size},)
    )


TOO_NARROW = {
    "at least four": (lambda: exported(Dim("n", min=4)), "of at least 4 images"),
    "at least three": (lambda: exported(Dim("n", min=3)), "of at least 3 images"),
    "four to eight": (lambda: exported(Dim("n", min=4, max=8)), "of up to 8 images"),
    "even": (lambda: exported(2 * Dim("n")), "batches of shape .* only"),
    "square": (shares_its_size, "batches of shape .* only"),
}


@pytest.mark.parametrize("how", ["file", "program", "module"])
@pytest.mark.parametrize("case", TOO_NARROW)
def test_programs_for_some_numbers_of_images_are_refused(case, how, tmp_path):
    make, message = TOO_NARROW[case]
    with pytest.raises(ValueError, match=f"{message}; export it for any number"):
        given(make(), how, tmp_path)


def given(program, how, tmp_path):
    if how == "file":
        torch.export.save(program, tmp_path / "net.pt2")
        return load_exported(tmp_path / "net.pt2")
    return as_exported_module(program if how == "program" else program.module())


@pytest.mark.parametrize(
    "batch", [Dim("n"), Dim("n", min=1), Dim("n", min=2), Dim.AUTO]
)
@pytest.mark.parametrize("how", ["file", "program", "module"])
def test_programs_for_any_number_behave_as_modules(batch, how, tmp_path):
    net = given(exported(batch, network(1)), how, tmp_path)
    assert net.train() is net.eval() is net
    assert not net.training
    for n in (1, 2, 5):
        x = torch.rand(n, 1, 4, 4)
        torch.testing.assert_close(net(x), network(1)(x))


def a_program():
    return exported(Dim("n"), network(1))


def a_module_of_a_program():
    return a_program().module()


def a_part_of_another():
    return nn.Sequential(nn.Identity(), a_program().module())


@pytest.mark.parametrize(
    "factory", ["a_program", "a_module_of_a_program", "a_part_of_another"]
)
def test_a_function_may_return_a_program(factory):
    net = load_module(f"test_loading:{factory}")
    assert not net.training
    x = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(net(x), network(1)(x))


@pytest.mark.parametrize("what", [network(), nn.ReLU(), "a string", None, len])
def test_what_is_no_program_comes_back(what):
    assert as_exported_module(what) is what


def test_a_traced_graph_is_no_program():
    graph = torch.fx.symbolic_trace(network())
    assert as_exported_module(graph) is graph


def test_a_program_that_is_a_pointer(tmp_path):
    (tmp_path / "net.pt2").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="model: .*net.pt2 is a pointer of git-lfs"):
        load_exported(tmp_path / "net.pt2")


# Functions that make networks ------------------------------------------


def needs_a_width(width):
    return network(width)


def fails_inside():
    return nn.Linear("4", 3)


def fails_later():
    return needs_a_width()


def has_no_such_key():
    return {}["width"]


def leaves():
    raise SystemExit(3)


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.size = len(5)


class NeedsAWidth(nn.Module):
    def __init__(self, width):
        super().__init__()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "needs_a_width",
            r"cannot be called without arguments \(needs_a_width\(\) missing",
        ),
        ("NeedsAWidth", "cannot be called without arguments"),
        ("fails_inside", "model: test_loading:fails_inside raised TypeError: "),
        ("fails_later", r"fails_later raised TypeError: needs_a_width\(\) missing 1"),
        ("Fails", "test_loading:Fails raised TypeError: object of type 'int' has no"),
        ("has_no_such_key", "raised KeyError: 'width'"),
        ("leaves", "raised SystemExit: 3"),
    ],
)
def test_what_fails_inside_is_told_from_what_cannot_be_called(factory, message):
    with pytest.raises(ValueError, match=message):
        load_module(f"test_loading:{factory}")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import a_package_that_is_missing",
            "importing {0} raised ModuleNotFoundError",
        ),
        ("import torch; torch.nothing", "importing {0} raised AttributeError: module"),
        ("def make(:", "importing {0} raised SyntaxError"),
        ("make = 1 + 'a'", "importing {0} raised TypeError: unsupported operand"),
        ("made = 1", "cannot find {0}:make .module '{0}' has no attribute 'make'"),
    ],
)
def test_a_file_that_fails_is_told_from_one_that_is_missing(
    code, message, tmp_path, monkeypatch, request
):
    name = f"made_by_hand_{abs(hash(request.node.name))}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}.py").write_text(code)
    with pytest.raises(ValueError, match=message.format(name)):
        load_module(f"{name}:make")
    with pytest.raises(ValueError, match="cannot find"):
        load_module(f"{name}.inside:make" if code == "made = 1" else "nowhere.net:make")
