import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from curvdetect.cli._parser import make_parser
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^\.venv/bin/curvdetect (.*)$", README, flags=re.MULTILINE)
#: What needs more extras than the rest.
OTHERS = [block for block in BLOCKS if "from_timm" in block]
#: What stands for a reader's own network and images.
OWN = [block for block in BLOCKS if "new_images" in block]


@pytest.mark.filterwarnings("ignore:mean AUROC")  # what the guard will miss
def test_the_examples_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        if block not in OTHERS + OWN:
            exec(block, names)
    assert 0 <= names["flagged"].mean() <= 0.2
    assert names["accuracy"] > 0.7
    assert (names["decided"] == names["y"][200:300]).mean() > 0.8
    assert 0.8 < names["guarded"].self_test_.mean_auroc <= 1
    assert names["found"].logits.shape == (8, 10)
    assert (names["answers"]["label"] == names["found"].label).all()


def test_the_commands_parse():
    names = {make_parser().parse_args(shlex.split(line)).command for line in COMMANDS}
    assert names == {"fit", "score", "serve", "export", "evade", "report"}


class InColour(torch.nn.Module):
    """The LeNet of the package, for normalised colour images of 32 x 32."""

    def __init__(self):
        super().__init__()
        self.lenet = load_lenet("fashion-mnist")
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.mean, self.std = (
            torch.tensor(each)[:, None, None] for each in (mean, std)
        )

    def forward(self, x):
        return self.lenet((x * self.std + self.mean).mean(1, True)[..., 2:-2, 2:-2])


@pytest.mark.filterwarnings("ignore:mean AUROC")  # what the guard will miss
def test_a_network_of_the_readers():
    X, y = load_fashion_mnist_sample()
    X = np.pad(X, ((0, 0), (0, 0), (2, 2), (2, 2))).repeat(3, axis=1)
    names = {"images": X[:120], "labels": y[:120], "new_images": X[120:170]}
    names["network"] = InColour().eval()
    (block,) = OWN
    exec(block.replace("(3, 224, 224)", "(3, 32, 32)"), names)
    found = names["found"]
    assert (found.label == y[120:170]).mean() > 0.8
    assert ((found.score > 0) == found.flagged).all()
    assert 0.8 < names["guard"].self_test_.mean_auroc <= 1


def test_networks_of_others(tmp_path, monkeypatch):
    """Each of the four, with random weights, in files that are made here."""
    for library in ("timm", "torchvision", "onnx2torch"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    save_vit(tmp_path / "my-vit")
    save_onnx(tmp_path / "net.onnx")
    (block,) = OTHERS
    found, names = [], {}
    for lines in block.split("\n\n")[1:]:
        exec(f"from curvdetect import TorchModel\n{lines}", names)
        found.append(names["network"])
    assert [each.n_classes for each in found] == [1000, 1000, 2, 10]
    assert [each.class_names[207] for each in found[:2]] == ["golden retriever"] * 2
    assert found[2].class_names == ("cat", "dog")
    assert found[3].input_shape == (3, 8, 8)
    assert [each.preparation is None for each in found] == [False] * 3 + [True]


def save_vit(folder):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    config = transformers.ViTConfig(
        id2label={0: "cat", 1: "dog"}, num_attention_heads=2, **sizes
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor().save_pretrained(folder)


def save_onnx(path):
    onnx = pytest.importorskip("onnx")
    weight = np.random.default_rng(0).normal(size=(192, 10)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    x = onnx.helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])
    y = onnx.helper.make_tensor_value_info("y", 1, [1, 10])
    w = onnx.numpy_helper.from_array(weight, "w")
    graph = onnx.helper.make_graph(nodes, "linear", [x], [y], [w])
    opsets = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)(.*?)(?:#.*?)?\)", README)
    assert len(links) > 10
    for path in links:
        assert (Path(__file__).parents[1] / path).exists(), path


def test_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert len(pictures) == len(set(pictures))
    for path in pictures:
        assert (Path(__file__).parents[1] / path).exists()
