"""Networks of timm, torchvision and ONNX: as their libraries say."""

import os
import pickle
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from curvdetect import TorchModel
from curvdetect.network import Preparation, load_module
from mixed_sizes import levels, pictures

#: Beside the data sets: networks of VNN-COMP.
SHARED = Path(os.environ.get("CURVDETECT_DATA", ".")).absolute().parent / "networks"


def as_input(model, picture):
    values = np.asarray(model.preparation.apply(picture), np.float32)
    return values.transpose(2, 0, 1)[None] / 255


# timm ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_a_network_of_timm(name):
    timm = pytest.importorskip("timm")
    module = timm.create_model(name, pretrained=False).eval()
    model = TorchModel.from_timm(module, batch_size=2)
    assert model.module is module
    assert model.batch_size == 2
    assert model.class_names[:2] == (
        "tench, Tinca tinca",
        "goldfish, Carassius auratus",
    )
    config = timm.data.resolve_data_config({}, model=module)
    transform = timm.data.create_transform(**config, is_training=False)
    for picture in list(pictures())[:3]:
        with torch.no_grad():
            expected = module(transform(picture)[None])
        found = model.predict_logits(as_input(model, picture))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_another_size_of_a_network_of_timm():
    data = pytest.importorskip("timm.data")
    model = TorchModel.from_timm(
        "test_efficientnet", pretrained=False, input_shape=(3, 96, 96)
    )
    assert model.preparation == Preparation((96, 96), 101, "bicubic")
    assert model.n_classes == 1000
    config = data.resolve_data_config({"input_size": (3, 96, 96)}, model=model.module)
    transform = data.create_transform(**config, is_training=False)
    picture = next(pictures())
    expected = levels(transform(picture), model.mean, model.std)
    found = np.asarray(model.preparation.apply(picture))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_features_are_no_logits():
    """As a seventh of the sets of weights of timm give, those with num_classes=0."""
    timm = pytest.importorskip("timm")
    module = timm.create_model("test_vit", pretrained=False, num_classes=0)
    with pytest.raises(ValueError, match=r"gives features, no logits .num_classes=0"):
        TorchModel.from_timm(module)


def test_names_are_those_of_the_classes_that_there_are():
    timm = pytest.importorskip("timm")
    module = timm.create_model("test_vit", pretrained=False, num_classes=4)
    assert TorchModel.from_timm(module).class_names is None
    own = {"num_classes": 4, "label_names": {"3": "d", "0": "a", "2": "c", "1": "b"}}
    module = timm.create_model(
        "test_vit", pretrained=False, num_classes=4, pretrained_cfg_overlay=own
    )
    model = TorchModel.from_timm(module)
    assert model.class_names == ("a", "b", "c", "d")
    named = TorchModel.from_timm(module, class_names=["wxyz"] * 4)
    assert named.class_names == ("wxyz",) * 4


def test_what_timm_lacks(monkeypatch):
    timm = pytest.importorskip("timm")
    with pytest.raises(ValueError, match="such as .*resnet50.*; got 'resnet5O'"):
        TorchModel.from_timm("resnet5O", pretrained=False)
    with pytest.raises(ValueError, match="network of timm.*got a Linear"):
        TorchModel.from_timm(nn.Linear(3, 2))

    def fail(*_, **__):
        raise RuntimeError("no way\nto the hub")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match="cannot make 'resnet50' with pretrained=True"):
        TorchModel.from_timm("resnet50")


# torchvision -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_a_network_of_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    weights = models.get_model_weights(name).DEFAULT
    module = models.get_model(name, weights=None).eval()
    transform = weights.transforms()
    for said in (weights, str(weights)):
        model = TorchModel.from_torchvision(module, weights=said)
        assert model.input_shape == (3, 224, 224)
        assert model.class_names == tuple(weights.meta["categories"])
    picture = next(pictures())
    with torch.no_grad():
        expected = module(transform(picture)[None])
    found = model.predict_logits(as_input(model, picture))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_random_weights_are_used_as_the_default_ones():
    pytest.importorskip("torchvision")
    model = TorchModel.from_torchvision("mobilenet_v3_small", weights=None, clamp=True)
    assert model.preparation == Preparation((224, 224), 256)
    assert model.clamp is True
    assert model.n_classes == len(model.class_names) == 1000


def test_weights_name_their_network(monkeypatch):
    models = pytest.importorskip("torchvision.models")
    asked = []

    def get_model(name, weights, **options):
        asked.append((name, weights, options))
        return nn.Flatten()

    monkeypatch.setattr(models, "get_model", get_model)
    second = models.ResNet50_Weights.IMAGENET1K_V2
    for given in (second, "ResNet50_Weights.IMAGENET1K_V2"):
        assert TorchModel.from_torchvision(given).preparation.resize == 232
    TorchModel.from_torchvision("resnet50", weights="IMAGENET1K_V1")
    random = TorchModel.from_torchvision(second, weights=None)
    assert random.preparation.resize == 232
    assert asked == [
        ("resnet50", second, {}),
        ("resnet50", second, {}),
        ("resnet50", models.ResNet50_Weights.IMAGENET1K_V1, {}),
        ("resnet50", None, {}),
    ]


@pytest.mark.filterwarnings("ignore:.*init_weights", "ignore:.*default weight init")
def test_random_weights_have_the_places_of_loaded_ones():
    """Without weights, torchvision makes these two otherwise than with them."""
    pytest.importorskip("torchvision")
    module = TorchModel.from_torchvision("googlenet", weights=None).module
    assert module.transform_input
    assert not any(name.startswith("aux") for name in module.state_dict())


def test_what_torchvision_lacks():
    models = pytest.importorskip("torchvision.models")
    make = TorchModel.from_torchvision
    with pytest.raises(ValueError, match="such as resnet50.*; got 'resnet5O'"):
        make("resnet5O", weights=None)
    with pytest.raises(ValueError, match=r"one of \['IMAGENET1K_V1'\], 'DEFAULT' or"):
        make("squeezenet1_1", weights="V7")
    for others in (
        models.ResNet50_Weights.IMAGENET1K_V1,
        "ResNet50_Weights.IMAGENET1K_V1",
    ):
        with pytest.raises(ValueError, match="for squeezenet1_1; got .*ResNet50_We"):
            make("squeezenet1_1", weights=others)
    with pytest.raises(ValueError, match="image classifier; the transforms.*Detection"):
        make("fasterrcnn_resnet50_fpn", weights=None)
    with pytest.raises(ValueError, match="weights must say which the module has"):
        make(nn.Flatten())
    with pytest.raises(ValueError, match="weights must be some of torchvision's"):
        make(nn.Flatten(), weights="None_Weights.V1")
    assert models.get_model  # used by name alone


# ONNX --------------------------------------------------------------------------


def graph(tmp_path, shape, *, batch="n", reshape=None, kind=np.float32, takes=None):
    """Write a linear network to a file."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    d = int(np.prod([each if isinstance(each, int) else 4 for each in shape]))
    weight = np.random.default_rng(0).normal(size=(d, 3)).astype(kind)
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    parts = [
        onnx.numpy_helper.from_array(weight, "w"),
        onnx.numpy_helper.from_array(np.array(reshape or [-1, d]), "s"),
    ]
    made = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Reshape", ["x", "s"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [onnx.helper.make_tensor_value_info("x", takes or number, [batch, *shape])],
        [onnx.helper.make_tensor_value_info("y", number, None)],
        parts,
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path, weight


@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5, 3), (60, 1)])
def test_an_onnx_file(batch, shape, tmp_path):
    path, weight = graph(tmp_path, shape, batch=batch)
    model = TorchModel.from_onnx(path, class_names=["a", "b", "c"])
    assert model.input_shape == shape
    x = np.random.default_rng(1).random((5, *shape)).astype(np.float32)
    expected = x.reshape(5, -1) @ weight
    np.testing.assert_allclose(model.predict_logits(x), expected, rtol=1e-4)
    with torch.no_grad():
        direct = load_module(str(path))(torch.from_numpy(x))
    np.testing.assert_allclose(direct, expected, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*half precision")
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_an_onnx_file_in_other_numbers(kind, tmp_path):
    path, weight = graph(tmp_path, (3, 2, 2), kind=kind)
    model = TorchModel.from_onnx(path)
    x = np.random.default_rng(1).random((5, 3, 2, 2)).astype(np.float32)
    expected = x.reshape(5, -1) @ weight.astype(float)
    np.testing.assert_allclose(model.predict_logits(x), expected, rtol=0.01, atol=0.01)


def test_an_onnx_file_for_bytes(tmp_path):
    """Pictures in [0, 1] would be black to it."""
    path, _ = graph(tmp_path, (3, 2, 2), takes=2)
    with pytest.raises(ValueError, match="must take floating-point.*it takes UINT8"):
        TorchModel.from_onnx(path)


def test_an_onnx_file_for_inputs_of_another_shape(tmp_path):
    path, _ = graph(tmp_path, (3, 2, 2))
    with pytest.raises(ValueError, match=r"inputs of shape \(3, 4, 5\); on one it rai"):
        TorchModel.from_onnx(path, input_shape=(3, 4, 5))


def test_an_onnx_file_in_another_process(tmp_path):
    path, _ = graph(tmp_path, (3, 2, 2))
    model = TorchModel.from_onnx(path)
    again = pickle.loads(pickle.dumps(model))
    assert list(again.module.state_dict()) == list(model.module.state_dict())
    assert joblib.hash(again) == joblib.hash(model)
    x = np.random.default_rng(1).random((5, 3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(again.predict_logits(x), model.predict_logits(x))


class Loose(nn.Module):
    """Weights of its own, not of a layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12, 3))
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x):
        return x.flatten(1) @ self.weight + self.shift


def test_a_traced_network_in_another_process():
    module = torch.fx.symbolic_trace(Loose()).eval()
    model = TorchModel(module, input_shape=(3, 2, 2))
    again = pickle.loads(pickle.dumps(model))
    assert [name for name, _ in again.module.named_parameters()] == ["weight"]
    assert [name for name, _ in again.module.named_buffers()] == ["shift"]
    assert joblib.hash(again) == joblib.hash(model)


def test_a_shape_that_the_file_leaves_open(tmp_path):
    path, _ = graph(tmp_path, (1, "h", "w"), reshape=[-1, 16])
    with pytest.raises(ValueError, match=r"input_shape must be given.*'h', 'w'"):
        TorchModel.from_onnx(path)
    assert TorchModel.from_onnx(path, input_shape=(1, 4, 4)).n_classes == 3


def test_a_file_for_one_image_at_a_time(tmp_path):
    path, _ = graph(tmp_path, (1, 4, 4), batch=1, reshape=[1, 16])
    with pytest.raises(ValueError, match="batches of any size.*on 2 it raises.*Export"):
        TorchModel.from_onnx(path)


def test_files_that_cannot_be_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    with pytest.raises(FileNotFoundError, match=r"there is no .*net\.onnx"):
        TorchModel.from_onnx(tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        TorchModel.from_onnx(tmp_path / "net.onnx")
    path, _ = graph(tmp_path, (1, 4, 4))
    made = onnx.load(path)
    made.graph.node[0].op_type = "Nothing"
    onnx.save(made, path)
    with pytest.raises(ValueError, match=r"onnx2torch cannot convert .*net\.onnx"):
        TorchModel.from_onnx(path)
    made.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, [1]))
    onnx.save(made, path)
    with pytest.raises(ValueError, match="must take one tensor.*'x', 'z'"):
        TorchModel.from_onnx(path)
    with pytest.raises(ValueError, match="weights must be left out.*a .onnx file"):
        load_module(str(path), "w.pt")


@pytest.mark.skipif(not SHARED.exists(), reason="needs the networks of VNN-COMP")
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Convnet_maxpool", (1, 28, 28)),
        ("ffnnSIGMOID__Point_6x200", (1, 28, 28)),
        ("mnist-net_256x4", (784, 1)),
        ("cifar10_large", (32, 32, 3)),
        ("resnet_4b", (3, 32, 32)),
    ],
)
def test_networks_that_nobody_here_trained(name, shape):
    pytest.importorskip("onnx2torch")
    model = TorchModel.from_onnx(SHARED / f"{name}.onnx")
    assert model.input_shape == shape
    assert model.n_classes == 10
    x = np.random.default_rng(0).random((7, *shape)).astype(np.float32)
    assert model.predict(x).shape == (7,)


# Names and preparations of any model -------------------------------------------


def named(**settings):
    settings = {"class_names": ["a", "b"], "preparation": Preparation((4, 4), 5)} | (
        settings
    )
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    return TorchModel(module, input_shape=(3, 4, 4), **settings)


def test_copies_keep_names_and_preparation():
    model = named()
    for copy in (pickle.loads(pickle.dumps(model)), model.clamped()):
        assert copy.class_names == ("a", "b")
        assert copy.preparation == Preparation((4, 4), 5)
    assert joblib.hash(pickle.loads(pickle.dumps(model))) == joblib.hash(model)
    assert joblib.hash(named(class_names=["a", "c"])) != joblib.hash(model)
    assert joblib.hash(named(preparation=None)) != joblib.hash(model)
    assert joblib.hash(named()) == joblib.hash(model)


@pytest.mark.parametrize("names", ["ab", ["a", 1], [], 3])
def test_names_that_are_none(names):
    with pytest.raises(ValueError, match="class_names must be a sequence of strings"):
        named(class_names=names)


def test_names_are_counted_once_the_logits_are():
    model = named(class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match="each of the 2 logits; got 3"):
        model.n_classes  # noqa: B018


@pytest.mark.parametrize(
    ("preparation", "message"),
    [
        (Image.new, "must be a Preparation or None; got function"),
        (Preparation((4, 5)), r"input_shape=\(3, 4, 4\); got size=\(4, 5\)"),
    ],
)
def test_preparations_that_do_not_fit(preparation, message):
    with pytest.raises(ValueError, match=message):
        named(preparation=preparation)


@pytest.mark.parametrize("extra", ["timm", "transformers", "onnx"])
def test_a_library_that_is_missing(extra, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, extra, None)
    make = getattr(TorchModel, f"from_{extra}")
    with pytest.raises(ImportError, match=rf"pip install 'curvdetect\[{extra}\]'"):
        make(tmp_path)
