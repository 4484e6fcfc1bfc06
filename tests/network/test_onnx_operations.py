"""ONNX files in operations of other versions, and with shapes that are computed."""

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import TorchModel
from curvdetect.network.sources._known_shapes import with_known_shapes

pytest.importorskip("onnx2torch")

import onnx
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

SHAPE = (2, 4, 4)
WEIGHT = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)


def written(path, nodes, opset, weight=WEIGHT, **numbers):
    """Write a network of some operations between "x" and "f", then a linear layer."""
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [*nodes, make_node("MatMul", ["f", "w"], ["y"])],
        "network",
        [tensor("x", onnx.TensorProto.FLOAT, ["n", *SHAPE])],
        [tensor("y", onnx.TensorProto.FLOAT, ["n", 5])],
        [
            onnx.numpy_helper.from_array(np.asarray(of), name)
            for name, of in {"w": weight, **numbers}.items()
        ],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)
    return path


def images(n, seed=1):
    return np.random.default_rng(seed).random((n, *SHAPE)).astype(np.float32)


def by_reference(path, x):
    return ReferenceEvaluator(str(path)).run(None, {"x": x})[0]


# Newer operations ----------------------------------------------------------------

#: The nearest pixel, as torch finds it.
FLOOR = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
#: Of versions that onnx2torch 1.5.15 does not know: what torch.onnx.export writes for
#: x.view(x.size(0), -1), x.mean((2, 3)) and a resizing.
NEWER = {
    "constants": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("Constant", [], ["first"], value_ints=[0]),
            make_node("Gather", ["shape", "first"], ["n"]),
            make_node("Constant", [], ["rest"], value_ints=[-1]),
            make_node("Concat", ["n", "rest"], ["sizes"], axis=0),
            make_node("Reshape", ["x", "sizes"], ["f"]),
        ],
        20,
        {},
    ),
    "a mean": (
        [
            make_node("ReduceMean", ["x", "axes"], ["mean"]),
            make_node("Sub", ["x", "mean"], ["centred"]),
            make_node("Flatten", ["centred"], ["f"]),
        ],
        18,
        {"axes": [2, 3]},
    ),
    "a size": (
        [
            make_node("Resize", ["x", "", "by"], ["large"], mode="nearest", **FLOOR),
            make_node(
                "MaxPool", ["large"], ["small"], kernel_shape=[2, 2], strides=[2, 2]
            ),
            make_node("Flatten", ["small"], ["f"]),
        ],
        18,
        {"by": np.float32([1, 1, 2, 2])},
    ),
}


@pytest.mark.parametrize("name", NEWER)
def test_operations_newer_than_known(name, tmp_path):
    nodes, opset, numbers = NEWER[name]
    path = written(tmp_path / "net.onnx", nodes, opset, **numbers)
    model, x = TorchModel.from_onnx(path), images(5)
    np.testing.assert_allclose(
        model.predict_logits(x), by_reference(path, x), rtol=1e-4, atol=1e-5
    )


def test_weights_by_another_name(tmp_path):
    """As torch.onnx.export(dynamo=False) writes those that are equal."""
    nodes = [
        make_node("Identity", ["one"], ["other"]),
        make_node("Identity", ["other"], ["third"]),
        make_node("Conv", ["x", "kernel", "one"], ["a"], kernel_shape=[1, 1]),
        make_node("Conv", ["a", "kernel", "third"], ["b"], kernel_shape=[1, 1]),
        make_node("Flatten", ["b"], ["f"]),
    ]
    numbers = {"one": np.float32([0.1, 0.2]), "kernel": np.float32([[3, 1], [2, 5]])}
    numbers["kernel"] = numbers["kernel"][:, :, None, None]
    path = written(tmp_path / "net.onnx", nodes, 16, **numbers)
    model, x = TorchModel.from_onnx(path), images(5)
    expected = by_reference(path, x)
    np.testing.assert_allclose(model.predict_logits(x), expected, rtol=1e-4)


def test_sizes_that_may_be_zero(tmp_path):
    """As torch.onnx.export writes every view."""
    view = make_node("Reshape", ["x", "sizes"], ["f"], allowzero=1)
    path = written(tmp_path / "net.onnx", [view], 19, sizes=[-1, 32])
    model, x = TorchModel.from_onnx(path), images(5)
    expected = by_reference(path, x)
    np.testing.assert_allclose(model.predict_logits(x), expected, rtol=1e-4)


def test_what_no_version_helps_is_said_of_the_file_as_it_is(tmp_path):
    path = written(tmp_path / "net.onnx", [make_node("Flatten", ["x"], ["f"])], 20)
    made = onnx.load(path)
    made.graph.node[0].op_type = "Det"
    onnx.save(made, path)
    with pytest.raises(ValueError, match="cannot convert .*Det.*opset_version=18"):
        TorchModel.from_onnx(path)


# Known shapes --------------------------------------------------------------------

RESHAPED = {
    "the rest is known": ([make_node("Reshape", ["x", "s"], ["f"])], {"s": [-1, 32]}),
    "the first is kept": ([make_node("Reshape", ["x", "s"], ["f"])], {"s": [0, -1]}),
    "computed": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("Gather", ["shape", "first"], ["n"]),
            make_node("Concat", ["n", "rest"], ["sizes"], axis=0),
            make_node("Reshape", ["x", "sizes"], ["f"]),
        ],
        {"first": [0], "rest": [-1]},
    ),
    "two, a multiple of the number of images": (
        [
            make_node("Reshape", ["x", "s"], ["rows"]),
            make_node("Softmax", ["rows"], ["shares"], axis=1),
            make_node("Reshape", ["shares", "back"], ["f"]),
        ],
        {"s": [-1, 16], "back": [-1, 32]},
    ),
}


class Around(nn.Module):
    """Another module with the network inside."""

    def __init__(self, inside):
        super().__init__()
        self.first, self.inside = nn.Identity(), nn.Sequential(inside)
        self.eval()

    def forward(self, x):
        return 2 * self.inside(self.first(x))


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("name", RESHAPED)
def test_a_network_that_reshapes_is_exported(name, around, tmp_path):
    nodes, numbers = RESHAPED[name]
    path = written(tmp_path / "net.onnx", nodes, 13, **numbers)
    module = TorchModel.from_onnx(path).module
    module = Around(module) if around else module
    code, hooks = str(module.state_dict().keys()), held_hooks(module)
    known = with_known_shapes(module, torch.from_numpy(images(1)))
    assert str(module.state_dict().keys()) == code
    assert held_hooks(module) == hooks == 0
    program = torch.export.export(
        known,
        (torch.from_numpy(images(4)),),
        dynamic_shapes=({0: torch.export.Dim("n")},),
        strict=False,
    ).module()
    for n in (1, 2, 7):
        x = images(n, seed=n)
        expected = (1 + around) * by_reference(path, x)
        for of in (module, known, program):
            found = of(torch.from_numpy(x)).detach()
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    ours = {id(each) for each in module.state_dict(keep_vars=True).values()}
    assert {id(each) for each in known.state_dict(keep_vars=True).values()} <= ours


def test_other_networks_are_left_as_they_are(lenet, tmp_path):
    one = torch.zeros(1, 1, 28, 28)
    assert with_known_shapes(lenet, one) is lenet
    path = written(tmp_path / "net.onnx", [make_node("Flatten", ["x"], ["f"])], 13)
    module = TorchModel.from_onnx(path).module
    assert with_known_shapes(module, torch.from_numpy(images(1))) is module


def held_hooks(module):
    """Count hooks."""
    return sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks)
        for part in module.modules()
    )
