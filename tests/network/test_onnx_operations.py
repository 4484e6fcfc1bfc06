"""ONNX files in operations of other versions, and with shapes that are computed."""

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import TorchModel
from curvdetect.network.sources._known_shapes import with_known_shapes
from curvdetect.network.sources.onnx import load_onnx

pytest.importorskip("onnx2torch")

import onnx
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

#: What torch says of onnx2torch's slices.
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")

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


# Older operations ----------------------------------------------------------------


def test_slices_of_a_version_that_is_not_known(tmp_path):
    """onnx2torch 1.5.15 knows those whose numbers are inputs, of opset 10 and later."""
    nodes = [
        make_node("Slice", ["x"], ["rows"], starts=[1], ends=[2**31], axes=[2]),
        make_node("Slice", ["x"], ["part"], starts=[0, 0, -3], ends=[9, 2, 4]),
        make_node("Concat", ["part", "rows"], ["more"], axis=1),
        make_node("Slice", ["more"], ["f4"], starts=[1, 0], ends=[-1, 9], axes=[1, 3]),
        make_node("Slice", ["x"], ["some"], starts=[0, 0], ends=[1, 2], axes=[1, 2]),
        make_node("Flatten", ["f4"], ["most"]),
        make_node("Flatten", ["some"], ["few"]),
        make_node("Concat", ["most", "few"], ["f"], axis=1),
    ]
    path = written(tmp_path / "net.onnx", nodes, 9)
    model, x = TorchModel.from_onnx(path), images(5)
    np.testing.assert_allclose(
        model.predict_logits(x), by_reference(path, x), rtol=1e-4, atol=1e-5
    )


def test_a_batch_norm_of_a_version_that_is_not_known(tmp_path):
    """onnx's own evaluator (1.23) has none of opset 8: by hand."""
    normal = {
        "scale": np.float32([1, 2]),
        "shift": np.float32([0.5, -1]),
        "mean": np.float32([0.4, 0.5]),
        "variance": np.float32([0.1, 0.2]),
    }
    nodes = [
        make_node("BatchNormalization", ["x", *normal], ["normal"]),
        make_node("Flatten", ["normal"], ["f"]),
    ]
    path = written(tmp_path / "net.onnx", nodes, 8, **normal)
    model, x = TorchModel.from_onnx(path), images(5)
    scale, shift, mean, variance = (each[:, None, None] for each in normal.values())
    f = scale * (x - mean) / np.sqrt(variance + 1e-5) + shift
    np.testing.assert_allclose(
        model.predict_logits(x), f.reshape(5, -1) @ WEIGHT, rtol=1e-4, atol=1e-5
    )


# Functions -----------------------------------------------------------------------

#: Opset, and what onnx2torch 1.5.15 knows in no version but ONNX has a body of.
FUNCTIONS = {
    "gelu": (20, make_node("Gelu", ["x"], ["a"])),
    "gelu by tanh": (20, make_node("Gelu", ["x"], ["a"], approximate="tanh")),
    "mish": (18, make_node("Mish", ["x"], ["a"])),
    "mish as it is today": (22, make_node("Mish", ["x"], ["a"])),
    "threshold": (22, make_node("ThresholdedRelu", ["x"], ["a"], alpha=0.4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_onnx(name, tmp_path):
    opset, node = FUNCTIONS[name]
    nodes = [node, make_node("Flatten", ["a"], ["f"])]
    path = written(tmp_path / "net.onnx", nodes, opset)
    model, x = TorchModel.from_onnx(path), images(5) - 0.5
    np.testing.assert_allclose(
        model.module(torch.from_numpy(x)), by_reference(path, x), rtol=1e-4, atol=1e-5
    )


def test_functions_of_a_file(tmp_path):
    nodes = [make_node("Twice", ["x"], ["a"], domain="own")]
    path = written(tmp_path / "net.onnx", [make_node("Flatten", ["x"], ["f"])], 17)
    made = onnx.load(path)
    made.graph.node.insert(0, nodes[0])
    made.graph.node[1].input[0] = "a"
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    body = [make_node("Add", ["of", "of"], ["sum"])]
    made.functions.append(
        onnx.helper.make_function("own", "Twice", ["of"], ["sum"], body, opsets[:1])
    )
    made.opset_import.append(opsets[1])
    onnx.save(made, path)
    model, x = TorchModel.from_onnx(path), images(5)
    expected = (2 * x.reshape(5, -1)) @ WEIGHT
    np.testing.assert_allclose(model.predict_logits(x), expected, rtol=1e-4, atol=1e-5)


def test_a_function_that_its_body_makes_inexact_is_refused(tmp_path):
    nodes = [
        make_node("GroupNormalization", ["x", "one", "one"], ["a"], num_groups=2),
        make_node("Flatten", ["a"], ["f"]),
    ]
    path = written(tmp_path / "net.onnx", nodes, 21, one=np.float32([1, 1]))
    with pytest.raises(ValueError, match="cannot convert .*opset_version=18"):
        TorchModel.from_onnx(path)


def test_what_no_version_helps_is_said_of_the_file_as_it_is(tmp_path):
    path = written(tmp_path / "net.onnx", [make_node("Flatten", ["x"], ["f"])], 20)
    made = onnx.load(path)
    made.graph.node[0].op_type = "Det"
    onnx.save(made, path)
    with pytest.raises(ValueError, match="cannot convert .*Det.*opset_version=18"):
        TorchModel.from_onnx(path)


# Known shapes --------------------------------------------------------------------

#: Networks that are told numbers: weights, or computed from shapes.
TOLD = {
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
    "slices": (
        [
            make_node("Slice", ["x", "from", "to"], ["ahead"]),
            make_node("Slice", ["x", "last", "first", "axes", "back"], ["behind"]),
            make_node("Slice", ["x", "one", "far", "axis", "two"], ["every"]),
            *(make_node("Flatten", [of], [f"{of} f"]) for of in ("ahead", "behind")),
            make_node("Flatten", ["every"], ["every f"]),
            make_node("Concat", ["ahead f", "behind f", "every f"], ["all"], axis=1),
            make_node("Slice", ["all", "zero", "end", "axis 1"], ["f"]),
        ],
        {
            "from": [0, 0, -3],
            "to": [2**31 - 1, 1, 3],
            "last": [-1, 2],
            "first": [-(2**63), 0],
        }
        | {"axes": [-1, 2], "back": [-1, -2], "one": [1], "far": [2**62]}
        | {"axis": [3], "two": [2], "zero": [0], "end": [32], "axis 1": [1]},
    ),
    "as many as there are images, moved by one": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("Slice", ["shape", "zero", "one"], ["n"]),
            make_node("Concat", ["x", "x", "x"], ["thrice"], axis=0),
            make_node("Add", ["n", "one"], ["n + 1"]),
            make_node("Add", ["n", "n + 1"], ["2 n + 1"]),
            make_node("Slice", ["thrice", "n + 1", "2 n + 1"], ["moved"]),
            make_node("Flatten", ["moved"], ["f"]),
        ],
        {"zero": [0], "one": [1]},
    ),
    "a token": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("Gather", ["shape", "first"], ["n"]),
            make_node("Unsqueeze", ["n", "zero"], ["n as a list"]),
            make_node("Concat", ["n as a list", "one", "four"], ["sizes"], axis=0),
            make_node("ConstantOfShape", ["sizes"], ["nothing"]),
            make_node("Add", ["nothing", "token"], ["tokens"]),
            make_node("Expand", ["token", "sizes"], ["as many"]),
            make_node("Reshape", ["x", "rows"], ["patches"]),
            make_node("Concat", ["tokens", "as many", "patches"], ["all"], axis=1),
            make_node("Slice", ["all", "one", "nine", "one"], ["eight"]),
            make_node("Flatten", ["eight"], ["f"]),
        ],
        {"first": 0, "zero": [0], "one": [1], "four": [4], "rows": [0, 8, 4]}
        | {"token": np.float32([[[1, 2, 3, 4]]]), "nine": [9]},
    ),
    "a filled tensor": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node(
                "ConstantOfShape",
                ["shape"],
                ["ones"],
                value=onnx.numpy_helper.from_array(np.float32([3])),
            ),
            make_node("Sub", ["x", "ones"], ["less"]),
            make_node("Flatten", ["less"], ["f"]),
        ],
        {},
    ),
    "where a size is free, of the input's": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("Equal", ["wanted", "free"], ["is free"]),
            make_node("Where", ["is free", "shape", "wanted"], ["sizes"]),
            make_node("Expand", ["row", "sizes"], ["rows"]),
            make_node("Mul", ["x", "rows"], ["product"]),
            make_node("Flatten", ["product"], ["f"]),
        ],
        {"wanted": [-1, 2, -1, 4], "free": [-1]}
        | {"row": np.float32([[[[1, 2, 3, 4]]]])},
    ),
    "tiles": (
        [
            make_node("Tile", ["x", "times"], ["tiled"]),
            make_node("Slice", ["tiled", "zero", "two", "axes"], ["part"]),
            make_node("Flatten", ["part"], ["f"]),
        ],
        {"times": [1, 2, 3, 1], "zero": [3, 2], "two": [7, 4], "axes": [2, 1]},
    ),
    "axes that come and go": (
        [
            make_node("Identity", ["axis"], ["same"]),
            make_node("Add", ["same", "same"], ["computed"]),
            make_node("Unsqueeze", ["x", "computed"], ["more"]),
            make_node("Squeeze", ["more", "two"], ["as before"]),
            make_node("Flatten", ["as before"], ["f"]),
        ],
        {"axis": [1], "two": [2]},
    ),
    "in order, by numbers": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("ReduceProd", ["shape"], ["size"], keepdims=0),
            make_node("Range", ["none", "size", "one"], ["numbers"]),
            make_node("Reshape", ["x", "free"], ["flat"]),
            make_node("Gather", ["flat", "numbers"], ["in order"]),
            make_node("Reshape", ["in order", "rows"], ["f"]),
        ],
        {"none": 0, "one": 1, "free": [-1], "rows": [-1, 32]},
    ),
    "a root of a size": (
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("Slice", ["shape", "last", "far"], ["size"]),
            make_node("Cast", ["size"], ["number"], to=onnx.TensorProto.FLOAT),
            make_node("Sqrt", ["number"], ["root"]),
            make_node("Div", ["x", "root"], ["less"]),
            make_node("Flatten", ["less"], ["f"]),
        ],
        {"last": [-1], "far": [2**62]},
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
@pytest.mark.parametrize("name", TOLD)
def test_a_network_that_is_told_numbers_is_exported(name, around, tmp_path):
    nodes, numbers = TOLD[name]
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


#: Numbers of parts that hang on pixels: their values, and how many there are.
OF_PIXELS = {
    "values": [
        make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        make_node("Mul", ["most", "four"], ["number"]),
        make_node("Cast", ["number"], ["whole"], to=onnx.TensorProto.INT64),
        make_node("Reshape", ["whole", "one"], ["end"]),
    ],
    "a shape": [
        make_node("Greater", ["x", "half"], ["is bright"]),
        make_node("NonZero", ["is bright"], ["bright"]),
        make_node("Shape", ["bright"], ["shape"]),
        make_node("Slice", ["shape", "zero", "one"], ["end"]),
    ],
}


@pytest.mark.parametrize("name", OF_PIXELS)
def test_numbers_that_hang_on_pixels_are_left(name, tmp_path):
    nodes = [
        *OF_PIXELS[name],
        make_node("Flatten", ["x"], ["all"]),
        make_node("Slice", ["all", "zero", "end", "one"], ["some"]),
        make_node("ReduceSum", ["some", "one"], ["sum"]),
        make_node("Sub", ["all", "sum"], ["f"]),
    ]
    numbers = {"zero": [0], "one": [1]}
    numbers |= {"half": np.float32(0.5), "four": np.float32(4.5)}
    path = written(tmp_path / "net.onnx", nodes, 13, **numbers)
    module = load_onnx(path)
    known = with_known_shapes(module, torch.from_numpy(images(1)))
    for bright in (0.2, 0.6, 1):
        x = torch.from_numpy(images(3, seed=7) * np.float32(bright))
        torch.testing.assert_close(known(x), module(x))
    with pytest.raises(Exception, match="data-dependent|not supported"):
        torch.export.export(known, (torch.from_numpy(images(4)),), strict=False)


@pytest.mark.parametrize("divisor", [2, 8])
def test_sizes_that_are_no_multiple_are_left(divisor, tmp_path):
    """A half of the images is one of an even number alone; an eighth of few is none."""
    nodes = [
        make_node("Shape", ["x"], ["shape"]),
        make_node("Slice", ["shape", "zero", "one"], ["n"]),
        make_node("Div", ["n", "divisor"], ["few"]),
        make_node("Slice", ["x", "zero", "few"], ["first"]),
        make_node("Slice", ["x", "few", "n"], ["second"]),
        make_node("Neg", ["first"], ["negative"]),
        make_node("Concat", ["negative", "second"], ["all"], axis=0),
        make_node("Flatten", ["all"], ["f"]),
    ]
    numbers = {"zero": [0], "one": [1], "divisor": [divisor]}
    path = written(tmp_path / "net.onnx", nodes, 13, **numbers)
    module = TorchModel.from_onnx(path).module
    known = with_known_shapes(module, torch.from_numpy(images(1)))
    for n in (1, 2, 9, 16):
        x = images(n)
        found = known(torch.from_numpy(x)).detach()
        np.testing.assert_allclose(found, by_reference(path, x), rtol=1e-4, atol=1e-5)


def test_a_network_that_is_given_several_sizes_is_left(tmp_path):
    """What it is told for one is not so for another."""

    class Twice(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, x):
            return self.inside(torch.cat([x, x])).sum(dim=0) + self.inside(x)

    nodes, numbers = TOLD["a token"]
    path = written(tmp_path / "net.onnx", nodes, 13, **numbers)
    module = Twice(TorchModel.from_onnx(path).module)
    assert with_known_shapes(module, torch.from_numpy(images(1))) is module


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
