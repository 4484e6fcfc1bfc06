"""The command line on networks of libraries: from a folder to a table with names."""

import csv
import io
import json
import re
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from curvdetect import CurvatureFeaturizer, GuardedClassifier, TorchModel, cli
from curvdetect.cli._network import (
    _in_another_order,
    loaded_companion,
    loaded_model,
)
from curvdetect.cli._pictures import read_all
from curvdetect.network import Preparation
from curvdetect.signals import Companion
from curvdetect.storage import load, save
from mixed_sizes import pictures

NAMES = ["cat", "dog", "owl"]


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.fixture
def folder(tmp_path):
    """Photographs of mixed sizes, some in a folder within."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, picture in enumerate(list(pictures()) * 2):
        turned = picture.rotate(5 * number)
        turned.save(folder / ("more" * (number % 2)) / f"{number:02}.png")
    turned.convert("L").save(folder / "grey.png")
    return folder


class Tiny(nn.Module):
    """Three classes, from averages of colours."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(27, 3)

    def forward(self, x):
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 3).flatten(1).sin())


def made(seed):
    """Return it as timm would make it."""
    torch.manual_seed(seed)
    module = Tiny().eval()
    module.num_classes = 3
    module.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "crop_pct": 0.9,
        "num_classes": 3,
        "label_names": NAMES,
    }
    return module


@pytest.fixture
def tiny(timm, monkeypatch):
    """A network of timm: with weights, always the same; without, always others."""
    made_without = []

    def create_model(name, pretrained):
        assert name == "test_vit"
        if pretrained:
            return made(0)
        made_without.append(len(made_without) + 1)
        return made(made_without[-1])

    monkeypatch.setattr(timm, "create_model", create_model)
    return made_without


def run(*argv):
    assert cli.main([str(each) for each in argv]) == 0


def fit(folder, out, *options):
    threshold = ["--detector", "threshold", "--n-boundaries", "1"]
    threshold += ["--target-fpr", "0.2"]
    argv = ["--images", folder, *threshold, "--out", out, *options]
    run("fit", "--preset", "timm:test_vit", *argv)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_a_folder_becomes_a_table_with_names(tiny, folder, tmp_path):
    guard, out = tmp_path / "guard.skops", tmp_path / "scores.csv"
    fit(folder, guard)
    assert not tiny  # with weights
    argv = ["--guard", guard, "--images", folder, "--out", out]
    run("score", "--preset", "timm:test_vit", *argv)
    assert tiny == [1]  # nothing is downloaded that is overwritten
    rows = rows_of(out)
    assert len(rows) == 15
    assert list(rows[0]) == [
        "image",
        "label",
        "label_name",
        "model_label",
        "model_label_name",
        "recovered_label",
        "recovered_label_name",
        "flagged",
        "score",
    ]
    model = TorchModel.from_timm(made(0))
    for row in rows:
        for label in ("label", "model_label", "recovered_label"):
            assert row[f"{label}_name"] == NAMES[int(row[label])]
        picture = Image.open(folder / row["image"]).convert("RGB")
        values = np.asarray(model.preparation.apply(picture), np.float32) / 255
        label = model.predict(values.transpose(2, 0, 1)[None])
        assert int(row["model_label"]) == label
    found = load(guard, Tiny())
    assert found.model_.class_names == tuple(NAMES)
    assert found.model_.preparation == model.preparation


def test_a_real_network_of_timm(timm, folder, tmp_path):
    """The random network of the guard's weights, made anew."""
    module = timm.create_model("test_efficientnet", pretrained=False).eval()
    model = TorchModel.from_timm(module, input_shape=(3, 32, 32))
    X = np.random.default_rng(0).random((12, 3, 32, 32)).astype(np.float32)
    featurizer = CurvatureFeaturizer(model, n_boundaries=1, random_state=0)
    guard = GuardedClassifier(model, featurizer=featurizer, target_fpr=0.2).fit(X)
    save(guard, tmp_path / "guard.skops")
    argv = ["--guard", tmp_path / "guard.skops", "--images", folder / "grey.png"]
    run(
        "score",
        "--preset",
        "timm:test_efficientnet",
        *argv,
        "--out",
        tmp_path / "s.csv",
    )
    (row,) = rows_of(tmp_path / "s.csv")
    assert row["model_label_name"] == model.class_names[int(row["model_label"])]


def test_a_guard_without_weights(tiny, folder, tmp_path, capsys):
    guard, out = tmp_path / "guard.skops", tmp_path / "scores.csv"
    torch.save(made(0).state_dict(), tmp_path / "w.pt")
    torch.save(made(1).state_dict(), tmp_path / "others.pt")
    fit(folder, guard, "--without-weights")
    argv = ["--guard", guard, "--images", folder, "--out", out]
    run("score", "--preset", "timm:test_vit", *argv)
    assert not tiny  # it had to be with weights
    by_preset = out.read_text()
    weights = ["--weights", tmp_path / "w.pt"]
    run("score", "--preset", "timm:test_vit", *argv, *weights)
    run("score", "--model", "test_presets:Tiny", *argv, *weights)
    assert out.read_text() == by_preset
    capsys.readouterr()
    others = ["--weights", str(tmp_path / "others.pt")]
    argv = [str(each) for each in argv]
    assert cli.main(["score", "--preset", "timm:test_vit", *argv, *others]) == 1
    assert "module must have the very weights" in capsys.readouterr().err


def test_weights_that_a_guard_holds_itself(tiny, folder, tmp_path, capsys):
    fit(folder, tmp_path / "guard.skops")
    argv = ["score", "--preset", "timm:test_vit", "--images", str(folder)]
    argv += ["--guard", str(tmp_path / "guard.skops"), "--weights", "w.pt"]
    assert cli.main(argv) == 1
    assert "weights must be left out: the guard in" in capsys.readouterr().err


def test_all_pictures_are_held_once(tmp_path):
    shape = (3, 32, 32)
    X = np.random.default_rng(0).random((1500, *shape)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    model = TorchModel(Tiny().eval(), input_shape=shape)
    tracemalloc.start()
    try:
        found = read_all(tmp_path / "x.npy", model, resize=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, X)
    assert peak < 1.7 * X.nbytes  # it grows by halves


def test_profile_with_other_settings(tiny, folder, tmp_path):
    argv = ["--images", folder, "--n-images", 1, "--n-boundaries", 1, "--std", "0.5"]
    argv += ["--input-shape", "3,16,16", "--out", tmp_path / "curvature-profile"]
    run("curvature-profile", "--preset", "timm:test_vit", *argv)
    written = json.loads(
        (tmp_path / "curvature-profile" / "curvature_profile.json").read_text()
    )
    (row,) = written["boundaries"]
    assert row["label_name"] == NAMES[row["label"]]
    assert row["other_name"] == NAMES[row["other"]]
    model = loaded_model(
        preset="timm:test_vit", input_shape=(3, 16, 16), std=(0.5, 0.5, 0.5)
    )
    assert model.preparation == Preparation((16, 16), 17, "bicubic")
    assert model.std == (0.5, 0.5, 0.5)
    assert model.mean == (0.485, 0.456, 0.406)


def test_weights_in_the_place_of_a_preset_s(tiny, tmp_path):
    torch.save(made(5).state_dict(), tmp_path / "w.pt")
    model = loaded_model(preset="timm:test_vit", weights=tmp_path / "w.pt")
    assert tiny == [1]
    assert model.weights_digest() == TorchModel.from_timm(made(5)).weights_digest()


@pytest.mark.filterwarnings("ignore:.*self-test", "ignore:mean AUROC")
@pytest.mark.filterwarnings("ignore:the companion agrees")
def test_a_preset_as_companion(tiny, quick, folder, tmp_path):
    """With its own size, and its classes in another order."""
    folder_of_companion = _saved_vit(tmp_path / "vit")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.random((60, 3, 32, 32)).astype(np.float32))
    argv = ["--preset", "timm:test_vit", "--companion", folder_of_companion]
    images = ["--images", tmp_path / "x.npy", "--target-fpr", "0.2"]
    guard = tmp_path / "guard.skops"
    run("fit", *argv, *images, "--without-weights", "--out", guard)
    assert guard.stat().st_size < 2**20
    run(
        "score",
        *argv,
        "--images",
        folder,
        "--guard",
        guard,
        "--out",
        tmp_path / "s.csv",
    )
    assert len(rows_of(tmp_path / "s.csv")) == 15


def _saved_vit(path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=dict(enumerate(["owl", "cat", "dog"])),
    )
    transformers.ViTForImageClassification(config).save_pretrained(path)
    size = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=size).save_pretrained(path)
    return f"transformers:{path}"


def test_companions_are_matched_by_names(tiny, tmp_path, capsys):
    model = loaded_model(preset="timm:test_vit")
    second = loaded_companion(
        _saved_vit(tmp_path / "vit"), None, model=model, device=None
    )
    assert isinstance(second, Companion)
    assert second.classes == (1, 2, 0)
    assert second.model.input_shape == (3, 16, 16)
    capsys.readouterr()
    same = loaded_companion("timm:test_vit", None, model=model, device=None)
    assert isinstance(same, TorchModel)
    renamed = TorchModel.from_timm(made(0), class_names=["a", "b", "c"])
    same = loaded_companion("timm:test_vit", None, model=renamed, device=None)
    assert isinstance(same, TorchModel)
    assert "taken to be in the network's order" in capsys.readouterr().err
    four = TorchModel(Tiny().eval(), input_shape=(3, 32, 32), class_names=list("abcd"))
    with pytest.raises(ValueError, match="the network's classes; by their names it"):
        loaded_companion("timm:test_vit", None, model=four, device=None)
    timm_data = pytest.importorskip("timm.data")
    ours = timm_data.ImageNetInfo("imagenet-1k").label_descriptions()
    theirs = pytest.importorskip("torchvision.models").ResNet50_Weights.DEFAULT.meta
    assert not _in_another_order(tuple(ours), tuple(theirs["categories"]))
    partly = TorchModel.from_timm(made(0), class_names=["dog", "cat", "kiwi"])
    with pytest.raises(ValueError, match=r"it lacks some .*not so for \['kiwi'\]"):
        loaded_companion("timm:test_vit", None, model=partly, device=None)
    plain = loaded_companion("test_presets:Tiny", None, model=model, device=None)
    assert plain.mean == model.mean
    assert plain.input_shape == model.input_shape


def test_an_onnx_file_as_model_and_as_preset(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    weight = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["x"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 3, 4, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((20, 3, 4, 4)))
    tables = []
    for source in (["--model", path], ["--preset", f"onnx:{path}"]):
        argv = [*source, "--images", tmp_path / "x.npy"]
        options = ["--detector", "threshold", "--target-fpr", "0.2"]
        run("fit", *argv, *options, "--out", tmp_path / "guard.skops")
        argv += ["--guard", tmp_path / "guard.skops", "--out", tmp_path / "scores.csv"]
        run("score", *argv)
        tables.append((tmp_path / "scores.csv").read_text())
    assert tables[0] == tables[1]
    assert "label_name" not in tables[0]
    argv = [
        "curvature-profile",
        "--model",
        str(path),
        "--weights",
        "w.pt",
        "--images",
        "x.npy",
    ]
    capsys.readouterr()
    assert cli.main(argv) == 1
    assert "weights must be left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "keras:resnet50"], "preset must be one of timm:NAME"),
        (["--preset", "timm"], "preset must be one of timm:NAME"),
        (["--preset", "onnx:nowhere.onnx"], "there is no nowhere.onnx"),
        (["--model", "test_presets:Tiny"], "input_shape must be given with model"),
        (["--preset", "timm:no", "--weights-key", "a"], "weights_key needs weights"),
    ],
)
def test_what_cannot_be_a_network(options, said, tmp_path, capsys):
    pytest.importorskip("onnx")
    argv = [
        "curvature-profile",
        *options,
        "--images",
        "x.npy",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main(argv) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--input-shape", "3,8", "must be channels .1 or 3., height and width.*'3,8'"),
        ("--input-shape", "3,8,x", "must be channels .*got '3,8,x'"),
        ("--mean", "0.5;0.5", "must be a number, or one for each.*got '0.5;0.5'"),
        ("--n-boundaries", "-1", "must be a number or \"all\"; got '-1'"),
    ],
)
def test_values_that_cannot_be_read(option, value, said, capsys):
    argv = ["fit", "--model", "a:b", "--images", "x", "--out", "y"]
    with pytest.raises(SystemExit):
        cli.main([*argv, f"{option}={value}"])
    assert re.search(f"argument {option}: {said}", capsys.readouterr().err)


def test_boundaries_to_all_classes(tiny, folder, tmp_path):
    fit(folder, tmp_path / "guard.skops", "--n-boundaries", "all")
    found = load(tmp_path / "guard.skops", Tiny())
    assert found.featurizer_.n_boundaries == "all"


@pytest.mark.parametrize("command", ["fit", "score", "curvature-profile", "companion"])
def test_one_of_model_and_preset(command, capsys):
    for options in ([], ["--model", "a:b", "--preset", "timm:c"]):
        with pytest.raises(SystemExit) as left:
            cli.main([command, "--images", "x", *options])
        assert left.value.code == 2
    assert "--preset" in capsys.readouterr().err
    with pytest.raises(ValueError, match="either model or preset"):
        loaded_model()
