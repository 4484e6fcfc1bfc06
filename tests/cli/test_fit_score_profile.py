"""The command line on a network of one's own: fit, score, and what goes wrong."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from curvdetect import GuardedClassifier, TorchModel, cli
from curvdetect.geometry import principal_curvatures
from curvdetect.network import find_nearest_boundaries
from curvdetect.storage import load, read_images, save
from curvdetect.study.networks import LeNet, load_lenet

MODEL = "curvdetect.study.networks:LeNet"
SHAPE = ["--input-shape", "1,28,28"]


def smooth():
    torch.manual_seed(0)
    layers = torch.nn.Flatten(), torch.nn.Linear(4800, 8), torch.nn.Softplus()
    return torch.nn.Sequential(*layers, torch.nn.Linear(8, 3)).eval()


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
    argv += ["--detector", "threshold"]
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
    assert "42 images; positive scores are flagged" in said

    argv = ["score", "--model", MODEL, "--guard", str(guard), "--images", str(folder)]
    assert cli.main(argv) == 0
    printed, said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["image"] for row in rows[:2]] == ["00.png", "01.png"]
    assert "42 images scored" in said

    X = np.round(255 * images[0]) / np.float32(255)
    found = load(guard, LeNet()).assess(X)
    assert capsys.readouterr().err == ""  # progress is shown by fit alone
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


def test_parquet_holds_the_same_table(guard, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    argv = ["score", "--model", MODEL, "--guard", str(guard), "--images", str(folder)]
    for suffix in ("json", "parquet"):
        assert cli.main([*argv, "--out", str(tmp_path / f"scores.{suffix}")]) == 0
    table = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert table == json.loads((tmp_path / "scores.json").read_text())


def test_an_exported_network_needs_no_class(lenet, folder, tmp_path, weights, capsys):
    network = str(tmp_path / "net.pt2")
    example, any_size = torch.zeros(2, 1, 28, 28), {0: torch.export.Dim("n")}
    program = torch.export.export(lenet, (example,), dynamic_shapes=(any_size,))
    torch.export.save(program, network)
    out = ["--out", str(tmp_path / "exported.skops"), "--target-fpr", "0.1"]
    argv = ["fit", "--model", network, *SHAPE, "--images", str(folder), *out]
    argv += ["--detector", "threshold"]
    assert cli.main([*argv, "--n-boundaries", "2"]) == 0
    rows = []
    for model, guard in (
        (network, tmp_path / "exported.skops"),
        (MODEL, fit(weights, folder, tmp_path / "guard.skops")),
    ):
        capsys.readouterr()
        argv = ["score", "--model", model, "--guard", str(guard)]
        assert cli.main([*argv, "--images", str(folder)]) == 0
        rows.append(list(csv.DictReader(io.StringIO(capsys.readouterr().out))))
    assert [row["label"] for row in rows[0]] == [row["label"] for row in rows[1]]
    scores = ([float(row["score"]) for row in part] for part in rows)
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-3)


def test_profile(weights, folder, tmp_path, capsys, model, images):
    """The numbers are those of the geometry; pictures and JSON say the same."""
    argv = ["curvature-profile", "--model", MODEL, "--weights", str(weights), *SHAPE]
    argv += ["--images", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main([*argv, "--n-images", "2", "--n-boundaries", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:2] == ["image", "class"]
    assert len(printed) == 5
    rows = json.loads((tmp_path / "out" / "curvature_profile.json").read_text())[
        "boundaries"
    ]
    X = np.round(255 * images[0][:2]) / np.float32(255)
    nearest = find_nearest_boundaries(model, X, n_boundaries=2)
    with model.evaluating():
        kappa = principal_curvatures(nearest.margin, nearest.points).values
    assert [row["image"] for row in rows] == ["00.png", "00.png", "01.png", "01.png"]
    assert [row["other"] for row in rows] == nearest.margin.other.tolist()
    np.testing.assert_allclose(
        [row["distance"] for row in rows], nearest.distances, rtol=1e-4
    )
    for row, values in zip(rows, kappa, strict=True):
        assert len(row["curvatures"]) == 783
        np.testing.assert_allclose(row["curvatures"], values, rtol=0.01, atol=0.02)
        assert row["mean"] == pytest.approx(float(values.mean()), abs=0.005)
        assert row["largest"] == pytest.approx(float(values.max()), rel=0.01)
    with Image.open(tmp_path / "out" / "curvature_profile.png") as picture:
        assert min(picture.size) > 400


def test_profile_of_large_images_has_the_leading_curvatures(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 3, 40, 40)))
    argv = [
        "curvature-profile",
        "--model",
        "test_fit_score_profile:smooth",
        "--input-shape",
        "3,40,40",
    ]
    argv += ["--images", str(tmp_path / "x.npy"), "--n-boundaries", "1"]
    assert cli.main([*argv, "--n-images", "1", "--out", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "curvature_profile.json").read_text())[
        "boundaries"
    ]
    assert len(row["curvatures"]) == 10
    assert "mean" not in row
    assert row["largest"] == max(row["curvatures"])


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
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.1).fit(*images)
    save(guard, tmp_path / "guard.skops")
    argv = ["score", "--model", MODEL, "--guard", str(tmp_path / "guard.skops")]
    assert cli.main([*argv, "--images", str(folder)]) == 1
    assert "for pictures in [0, 1]" in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["28", "2,28,28", "1,0,28", "a,b,c"])
def test_bad_shape_is_wrong_usage(shape, capsys):
    options = ["--input-shape", shape]
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", "--model", MODEL, "--images", ".", "--out", "g", *options])
    assert left.value.code == 2
    assert "--input-shape" in capsys.readouterr().err
