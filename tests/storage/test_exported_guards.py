"""Guards as programs of torch: what they say is what the guard says, without us."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from elsewhere import Device, Elsewhere, move
from numpy.testing import assert_allclose, assert_array_equal
from quickly import learn_little
from sklearn.exceptions import NotFittedError
from torch import nn

from curvdetect import CurvatureGuard, GuardedClassifier, LearnedDetector, TorchModel
from curvdetect.cli import main
from curvdetect.estimators import VotingDetector, _exportable
from curvdetect.network import Preparation
from curvdetect.storage import compare_exported, export_guard, save
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from modules import second_lenet

ALONE = """
import sys
import numpy, torch

class Refuses:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "curvdetect":
            raise ImportError(name)

sys.meta_path.insert(0, Refuses())
program = torch.export.load(sys.argv[1]).module()
found = program(torch.from_numpy(numpy.load(sys.argv[2])))
numpy.savez(sys.argv[3], **{name: each.numpy() for name, each in found.items()})
"""


@pytest.fixture(scope="module")
def few_trees():
    """What `quick` does, for a module."""
    with pytest.MonkeyPatch.context() as patched:
        learn_little(patched)
        yield


def learned(network, X, y=None, companion=None, **settings):
    detector = LearnedDetector(target_fpr=0.1, self_test=False, random_state=0)
    guard = GuardedClassifier(
        network, companion=companion, detector=detector, **settings
    )
    return guard.fit(X, y)


class Made(NamedTuple):
    guard: GuardedClassifier
    exported: torch.export.ExportedProgram
    program: nn.Module
    path: Path
    about: dict
    X: np.ndarray


def exported(guard, path, X):
    export_guard(guard, path)
    about = {"guard.json": ""}
    program = torch.export.load(path, extra_files=about)
    about = json.loads(about["guard.json"])
    return Made(guard, program, program.module(), path, about, X)


@pytest.fixture(scope="module")
def together(few_trees, tmp_path_factory):
    """A guard of the LeNet with a companion, and what was made of it."""
    X, y = load_fashion_mnist_sample()
    guard = learned(load_lenet("fashion-mnist"), X[:90], y[:90], second_lenet())
    return exported(guard, tmp_path_factory.mktemp("two") / "guard.pt2", X[90:190])


@pytest.fixture(scope="module")
def alone(few_trees, tmp_path_factory):
    """The same of a small network without one."""
    torch.manual_seed(0)
    X = np.random.default_rng(0).random((190, 1, 8, 8), dtype=np.float32)
    network = TorchModel(
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5)
        ).eval(),
        input_shape=(1, 8, 8),
        class_names=[f"class {c}" for c in range(5)],
        preparation=Preparation(size=(8, 8), resize=10),
    )
    guard = learned(network, X[:90])
    return exported(guard, tmp_path_factory.mktemp("one") / "guard.pt2", X[90:])


@pytest.fixture(params=["alone", "together"])
def either(request):
    return request.getfixturevalue(request.param)


def check_same(found, guard, X):
    expected = guard.assess(X)
    for name in ("label", "recovered_label", "flagged"):
        assert_array_equal(found[name].numpy(), getattr(expected, name))
    assert_allclose(found["score"].numpy(), expected.score, atol=1e-6)
    assert_allclose(found["p_value"].numpy(), guard.p_values(X), atol=1e-12)
    assert_allclose(
        found["logits"].numpy(), guard._logits_and_assessment(X)[0], atol=1e-4
    )


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_it_says_what_the_guard_says(either, n):
    guard, program, X = either.guard, either.program, either.X
    stages = guard.detector_.examine(X).stage
    assert len(set(stages)) > 1  # some leave early
    assert guard.detector_.usual_.any()  # labels differ in what is usual
    first = np.argsort(-stages, kind="stable")
    for order in (first, first[::-1]):  # images that leave late, and at once
        check_same(program(torch.from_numpy(X[order][:n])), guard, X[order][:n])


def test_it_runs_without_this_package(together, tmp_path):
    guard, path, X = together.guard, together.path, together.X
    given, out = tmp_path / "X.npy", tmp_path / "out.npz"
    np.save(given, X[:20])
    argv = [sys.executable, "-c", ALONE, *map(str, (path, given, out))]
    subprocess.run(argv, check=True)
    with np.load(out) as answers:
        found = {name: torch.from_numpy(values) for name, values in answers.items()}
    check_same(found, guard, X[:20])


def test_nothing_in_it_names_a_device_or_a_path(together):
    program = together.exported
    for node in program.graph.nodes:
        places = [*node.args, *node.kwargs.values()]
        assert not any(isinstance(place, torch.device) for place in places), node
        assert "stack_trace" not in node.meta
    assert not any(weight.requires_grad for weight in program.state_dict.values())
    assert not program.constants  # which `to` would leave behind


def test_it_moves(together):
    images = torch.from_numpy(together.X)
    moved = together.exported.module()
    with Device(), torch.no_grad():
        found = move(moved)(Elsewhere(images))
        found = {name: each.cpu() for name, each in found.items()}
    for name, values in together.program(images).items():
        assert_array_equal(found[name].numpy(), values.numpy())


def test_the_file_says_what_it_takes(alone):
    guard, about = alone.guard, alone.about
    assert about["input_shape"] == [1, 8, 8]
    assert about["bounds"] == [0, 1]
    assert about["class_names"][3] == "class 3"
    assert about["preparation"]["resize"] == 10
    assert about["threshold"] == guard.detector_.threshold_
    assert about["target_fpr"] == 0.1
    assert about["early_exit"] is True


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.5])
def test_what_the_guard_refuses_is_flagged(together, value):
    guard, program, X = together.guard, together.program, together.X[:4].copy()
    X[2, 0, 5, 5] = value
    with pytest.raises(ValueError, match="finite|NaN|infinity|bounds"):
        guard.assess(X)
    found = program(torch.from_numpy(X))
    assert found["flagged"][2]
    assert found["score"][2] == np.inf
    assert found["p_value"][2] == 1 / (len(guard.detector_.clean_scores_) + 1)
    others = [0, 1, 3]
    check_same({name: each[others] for name, each in found.items()}, guard, X[others])


def test_the_guard_is_left_as_it_was(alone, tmp_path):
    guard, X = alone.guard, alone.X
    module, before = guard.model_.module, guard.assess(X)
    module.train()
    module.requires_grad_(True)
    export_guard(CurvatureGuard(guard), tmp_path / "again.pt2")
    assert all(part.training for part in module.modules())
    assert all(weight.requires_grad for weight in module.parameters())
    assert all(weight.grad is None for weight in module.parameters())
    assert_array_equal(guard.assess(X).score, before.score)


def test_every_stage_and_rejected(alone, tmp_path, monkeypatch):
    """Where torch refuses the early exit, all is measured, and it says so."""
    guard, X = alone.guard, alone.X
    traced = _exportable._traced

    def refuses(guard, *, early):
        if early:
            raise RuntimeError("u0 is not known")
        return traced(guard, early=early)

    monkeypatch.setattr(_exportable, "_traced", refuses)
    settings = guard.get_params(deep=False)
    try:
        guard.set_params(on_flag="reject", reject_label=-7)
        with pytest.warns(UserWarning, match="8 forward passes.*u0 is not known"):
            about = export_guard(guard, tmp_path / "guard.pt2")
        assert about["early_exit"] is False
        found = torch.export.load(tmp_path / "guard.pt2").module()(torch.from_numpy(X))
        assert (found["label"] == -7).any()
        check_same(found, guard, X)
    finally:
        guard.set_params(**settings)


def test_how_far_it_is_from_a_guard(together):
    guard, path, X = together.guard, together.path, together.X
    same = compare_exported(path, guard, X)
    assert same["score"] < 1e-6
    assert same["label"] == same["recovered_label"] == same["flagged"] == 0
    guard.set_params(on_flag="reject")
    try:
        other = compare_exported(path, guard, X)
        assert other["label"] == guard.assess(X).flagged.sum() > 0
    finally:
        guard.set_params(on_flag="relabel")


class OfManyClasses(nn.Module):
    """Forty classes, batch normalisation; and no image at all is refused."""

    def __init__(self):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(1), nn.ReLU(inplace=True)
        self.layers = nn.Linear(64, 32), nn.Linear(32, 40)
        self.first, self.last = self.layers
        self.eval()

    def forward(self, x):
        x = self.norm(x)
        return self.last(self.relu(self.first(x.view(x.shape[0], -1))))


def test_more_classes_than_columns(few_trees, tmp_path):
    X = np.random.default_rng(0).random((150, 1, 8, 8), dtype=np.float32)
    with pytest.raises(RuntimeError, match="0 elements"):
        OfManyClasses()(torch.zeros(0, 1, 8, 8))
    guard = learned(OfManyClasses(), X[:90])
    export_guard(guard, tmp_path / "guard.pt2")
    program = torch.export.load(tmp_path / "guard.pt2").module()
    for n in (1, 2, 60):
        check_same(program(torch.from_numpy(X[90:][:n])), guard, X[90:][:n])


class Looks(nn.Module):
    """Decides by the values of its input, which no program can."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 5)
        self.eval()

    def forward(self, x):
        if not x.isfinite().all():
            raise ValueError("not finite")
        return self.last(x.flatten(1))


class Counts(Looks):
    """Takes the number of images for a number."""

    def forward(self, x):
        return self.last(x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Looks, r"data-dependent.*\(at .*test_exported_guards.py, line \d+\)\. Change"),
        (Counts, "must ask for x.shape.*specialized it to be a constant"),
    ],
)
def test_a_network_that_torch_refuses(network, said, few_trees, tmp_path, capsys):
    X = np.random.default_rng(0).random((90, 1, 8, 8), dtype=np.float32)
    guard = learned(network(), X)
    with pytest.raises(ValueError, match=said):
        export_guard(guard, tmp_path / "guard.pt2")
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == ""


def linear_onnx(path, noise):
    """Write a network to an ONNX file of opset 9, and read it.

    It reshapes its images, and puts as many zeros before them as there are images.
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    random = np.random.default_rng(0)
    weight = random.normal(size=(65, 5)) + noise * random.normal(size=(65, 5))
    tensor, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Shape", ["x"], ["shape"]),
            node("Slice", ["shape"], ["n"], starts=[0], ends=[1]),
            node("Concat", ["n", "one"], ["sizes"], axis=0),
            node("ConstantOfShape", ["sizes"], ["token"]),
            node("Reshape", ["x", "rows"], ["flat"]),
            node("Concat", ["token", "flat"], ["all"], axis=1),
            node("MatMul", ["all", "weight"], ["z"]),
            node("Sin", ["z"], ["y"]),
        ],
        "linear",
        [tensor("x", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [tensor("y", onnx.TensorProto.FLOAT, ["n", 5])],
        [
            onnx.numpy_helper.from_array(np.array([1]), "one"),
            onnx.numpy_helper.from_array(np.array([-1, 64]), "rows"),
            onnx.numpy_helper.from_array(np.float32(weight), "weight"),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 9)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return TorchModel.from_onnx(path)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # by onnx2torch
def test_networks_of_onnx_files_with_sizes_that_are_computed(few_trees, tmp_path):
    """Network and companion; the guard keeps those it had."""
    model, companion = (
        linear_onnx(tmp_path / f"{noise}.onnx", noise) for noise in (0, 0.01)
    )
    X = np.random.default_rng(0).random((200, 1, 8, 8), dtype=np.float32)
    y = model.predict(X)
    held = model.module, companion.module
    guard = learned(model, X[:150], y[:150], companion)
    assert export_guard(guard, tmp_path / "guard.pt2")["early_exit"]
    found = compare_exported(tmp_path / "guard.pt2", guard, X)
    assert found["label"] == found["flagged"] == found["recovered_label"] == 0
    assert max(found.values()) < 1e-6
    asked = guard.detector_.companion_.model.module
    assert (guard.model_.module, asked) == held


def test_what_cannot_be_exported(alone, lenet, images, tmp_path):
    guard = alone.guard
    path = tmp_path / "guard.pt2"
    with pytest.raises(TypeError, match="a GuardedClassifier or a CurvatureGuard"):
        export_guard(guard.detector_, path)
    with pytest.raises(NotFittedError):
        export_guard(GuardedClassifier(lenet), path)
    threshold = GuardedClassifier(lenet, detector="threshold", target_fpr=0.1)
    with pytest.raises(ValueError, match="must have a LearnedDetector.*searches"):
        export_guard(threshold.fit(*images), path)
    threshold.detector_ = VotingDetector()
    with pytest.raises(ValueError, match="votes need random numbers"):
        export_guard(threshold, path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        export_guard(guard, tmp_path / "nowhere" / "guard.pt2")
    with torch.no_grad():
        last = list(guard.model_.module.parameters())[-1]
        last += 1
        with pytest.raises(ValueError, match="weights"):
            export_guard(guard, path)
        last -= 1
    assert not path.exists()


def test_command(together, tmp_path, capsys):
    guard, X = together.guard, together.X
    kept, out = tmp_path / "guard.skops", tmp_path / "guard.pt2"
    save(guard, kept)
    np.save(tmp_path / "X.npy", X[:8])
    argv = ["export", str(kept), "--model", "curvdetect.study.networks:LeNet"]
    argv += ["--companion", "modules:second_lenet"]
    argv += ["--images", str(tmp_path / "X.npy"), "--out"]
    assert main([*argv, str(tmp_path / "guard.pickle")]) == 1
    assert "out must be a .pt2 file" in capsys.readouterr().err
    assert main([*argv, str(out)]) == 0
    said = capsys.readouterr().err
    assert "images leave early" in said
    assert "on 8 images: scores differ by" in said
    assert "labels of 0, flags of 0" in said
    assert zipfile.is_zipfile(out)
