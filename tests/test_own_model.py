"""The command line on a network of one's own: fit, score, and what goes wrong."""

import csv
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from curvdetect import GuardedClassifier, TorchModel, cli
from curvdetect.images import read_images
from curvdetect.networks import LeNet, load_lenet
from curvdetect.persistence import load, save

MODEL = "curvdetect.networks:LeNet"
SHAPE = ["--input-shape", "1,28,28"]


def not_a_network():
    return "a string"


def needs_arguments(width):
    return LeNet(width)


a_string = "no function"


@pytest.fixture
def weights(tmp_path):
    torch.save({"state_dict": load_lenet("fashion-mnist").state_dict()}, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def folder(tmp_path, images):
    """Forty pictures, and some that are something else."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for position, image in enumerate(images[0]):
        grey = Image.fromarray(np.uint8(np.round(255 * image[0])))
        grey.save(folder / f"{position:02}.png")
    grey.convert("RGB").save(folder / "more" / "colour.png")
    grey.convert("RGBA").save(folder / "more" / "transparent.png")
    grey.resize((32, 40)).save(folder / "more" / "large.png")
    (folder / "broken.png").write_bytes(b"\x89PNG nonsense")
    deep = np.uint16(np.arange(28 * 28).reshape(28, 28) * 80)
    Image.fromarray(deep).save(folder / "more" / "sixteen.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def fit(weights, folder, out):
    argv = ["fit", "--model", MODEL, "--weights", str(weights), *SHAPE, "--images"]
    argv += [str(folder), "--target-fpr", "0.1", "--n-boundaries", "2"]
    assert cli.main([*argv, "--out", str(out)]) == 0
    return out


@pytest.fixture
def guard(tmp_path, weights, folder):
    return fit(weights, folder, tmp_path / "guard.skops")


def test_fit_then_score(weights, folder, tmp_path, capsys, images):
    guard = fit(weights, folder, tmp_path / "guard.skops")
    said = capsys.readouterr().err
    assert "refused broken.png: cannot identify image file" in said
    assert "refused more/large.png: it has 32 x 40 pixels, not 28 x 28" in said
    assert "refused more/sixteen.png: its values have 16 or more bits" in said
    assert "3 images were refused" in said
    assert "42 images; step" in said

    argv = ["score", "--model", MODEL, "--guard", str(guard), "--images", str(folder)]
    assert cli.main(argv) == 0
    printed, said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["image"] for row in rows[:2]] == ["00.png", "01.png"]
    assert "42 images scored" in said

    X = np.round(255 * images[0]) / np.float32(255)
    found = load(guard, LeNet()).assess(X)
    assert [int(row["label"]) for row in rows[:40]] == found.label.tolist()
    assert [row["flagged"] == "True" for row in rows[:40]] == found.flagged.tolist()
    scores = [float(row["score"]) for row in rows[:40]]
    np.testing.assert_allclose(scores, found.score, rtol=1e-3, atol=1e-4)
    of_colour = next(row for row in rows if row["image"] == "more/colour.png")
    assert float(of_colour["score"]) == pytest.approx(scores[-1], rel=1e-3, abs=1e-4)


def test_arrays_and_json(guard, tmp_path, images):
    X = images[0][:5].copy()
    X[3, 0, 0, 0] = np.nan
    for name, values in (("floats", X), ("bytes", np.uint8(np.nan_to_num(X) * 255))):
        np.savez(tmp_path / f"{name}.npz", X=values, y=np.arange(5))
        out = tmp_path / f"{name}.json"
        argv = ["score", "--model", MODEL, "--guard", str(guard), "--out", str(out)]
        assert cli.main([*argv, "--images", str(tmp_path / f"{name}.npz")]) == 0
        rows = json.loads(out.read_text())
        kept = [0, 1, 2, 4] if name == "floats" else range(5)
        assert [row["image"] for row in rows] == [str(i) for i in kept]


def test_pictures_of_another_size_are_resized_if_asked(folder):
    (batch,) = read_images(folder, (3, 28, 28), resize=True)
    assert batch.X.shape == (43, 3, 28, 28)
    assert batch.X.min() >= 0
    assert batch.X.max() <= 1
    assert list(batch.refused) == ["broken.png", "more/sixteen.png"]


def test_transparent_pictures_are_laid_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "nothing.png")
    (batch,) = read_images(tmp_path / "nothing.png", (1, 4, 4))
    assert (batch.X == 1).all()


def test_batches_are_of_the_size_that_is_asked_for(folder):
    sizes = [len(batch.X) for batch in read_images(folder, (1, 28, 28), batch_size=16)]
    assert sum(sizes) == 42
    assert max(sizes) <= 16


BAD_FIT = {
    "no colon": (["--model", "net"], "model must be package.module:factory; got 'net'"),
    "no module": (["--model", "nowhere:make"], "model: cannot find nowhere:make"),
    "no function": (["--model", "curvdetect.networks:Nothing"], "model: cannot find"),
    "no network": (
        ["--model", "test_own_model:not_a_network"],
        "must give a torch.nn.Module; test_own_model:not_a_network gave str",
    ),
    "no call": (["--model", "test_own_model:a_string"], "neither a network nor a func"),
    "arguments": (["--model", "test_own_model:needs_arguments"], "cannot be called"),
    "relative": (["--model", ".net:make"], "model: cannot find .net:make"),
    "no folder": (["--out", "nowhere/guard.skops"], "out: there is no folder nowhere"),
    "no weights": (["--weights", "nowhere.pt"], "nowhere.pt"),
    "no images": (["--images", "nowhere"], "images: there is no nowhere"),
    "few images": (["--target-fpr", "0.001"], "needs at least 999 clean images"),
    "fpr": (["--target-fpr", "7"], "target_fpr must be"),
    "boundaries": (["--n-boundaries", "10"], "n_boundaries must be less than"),
    "mean": (["--mean", "1,2"], "mean must"),
    "std": (["--std", "0"], "std must be positive"),
    "shape": (["--input-shape", "3,28,28"], "the module cannot be called on inputs"),
}


@pytest.mark.parametrize("what", BAD_FIT)
def test_bad_fit_is_one_line(what, weights, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(__file__.rpartition("/")[0])
    options, message = BAD_FIT[what]
    argv = ["fit", "--model", MODEL, *SHAPE, "--images", str(folder)]
    argv += ["--target-fpr", "0.1"]
    argv += ["--out", str(tmp_path / "guard.skops"), *options]
    assert cli.main(argv) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("curvdetect: error: ")
    assert message in last
    assert not (tmp_path / "guard.skops").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "weights: .* cannot be read"),
        (b"", "weights: .* cannot be read"),
        ({"a": torch.zeros(1)}, "weights do not fit the network"),
        ([1, 2], "weights do not fit the network"),
    ],
)
def test_bad_weights(content, message, tmp_path, folder, capsys):
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    argv = ["fit", "--model", MODEL, *SHAPE, "--images", str(folder), "--weights"]
    assert cli.main([*argv, str(path), "--out", str(tmp_path / "g.skops")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def bad_images(tmp_path):
    """Make sources that cannot be images."""
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "shape.npy", np.zeros((2, 3, 28, 28), np.float32))
    np.save(tmp_path / "none.npy", np.zeros((0, 1, 28, 28), np.float32))
    np.save(tmp_path / "integers.npy", np.zeros((2, 1, 28, 28), np.int64))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "names.npz", a=np.zeros(1), b=np.zeros(1))
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    np.savez(tmp_path / "whole.npz", X=np.zeros((2, 1, 28, 28), np.float32))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "range.npy", np.full((2, 1, 28, 28), 7.0))


BAD_IMAGES = {
    "empty": "must hold pictures",
    "shape.npy": "must have shape (n, 1, 28, 28); got (2, 3, 28, 28)",
    "none.npy": "must have shape (n, 1, 28, 28); got (0, 1, 28, 28)",
    "integers.npy": "must be floats in [0, 1] or bytes; got an array of int64",
    "objects.npy": "cannot be read",
    "names.npz": 'must hold an array called "X" or "images"',
    "broken.npz": "cannot be read",
    "short.npz": "cannot be read",
    "range.npy": "none of those in",
}


@pytest.mark.parametrize("source", BAD_IMAGES)
def test_bad_images(source, tmp_path, capsys):
    bad_images(tmp_path)
    argv = ["fit", "--model", MODEL, *SHAPE, "--images", str(tmp_path / source)]
    assert cli.main([*argv, "--out", str(tmp_path / "guard.skops")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("curvdetect: error: images")
    assert BAD_IMAGES[source] in last


def test_an_old_result_stays_where_nothing_is_scored(guard, tmp_path):
    old = tmp_path / "old.csv"
    old.write_text("what was there")
    argv = ["score", "--model", MODEL, "--guard", str(guard), "--out", str(old)]
    assert cli.main([*argv, "--images", str(tmp_path / "nowhere")]) == 1
    assert old.read_text() == "what was there"


def test_a_guard_for_other_inputs_is_refused(folder, tmp_path, images, capsys):
    model = TorchModel(
        load_lenet("fashion-mnist"), input_shape=(1, 28, 28), bounds=None
    )
    guard = GuardedClassifier(model, target_fpr=0.1).fit(*images)
    save(guard, tmp_path / "guard.skops")
    argv = ["score", "--model", MODEL, "--guard", str(tmp_path / "guard.skops")]
    assert cli.main([*argv, "--images", str(folder)]) == 1
    assert "for pictures in [0, 1]" in capsys.readouterr().err


def test_bad_score(guard, folder, tmp_path, capsys):
    common = ["score", "--model", MODEL, "--images", str(folder)]
    for options, message in (
        (["--guard", str(guard), "--out", "x.doc"], "out must end with .csv or .json"),
        (["--guard", "nowhere.skops"], "nowhere.skops"),
        (
            ["--guard", str(folder / "00.png")],
            "a file that curvdetect.persistence.save",
        ),
    ):
        capsys.readouterr()
        assert cli.main([*common, *options]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["28", "2,28,28", "1,0,28", "a,b,c"])
def test_bad_shape_is_wrong_usage(shape, capsys):
    options = ["--input-shape", shape]
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", "--model", MODEL, "--images", ".", "--out", "g", *options])
    assert left.value.code == 2
    assert "--input-shape" in capsys.readouterr().err
