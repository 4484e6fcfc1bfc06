"""The command report: a page from files, and what it refuses before it begins."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from curvdetect import TorchModel, cli
from curvdetect.cli import report
from curvdetect.cli._parser import make_parser
from curvdetect.report.guard import attacked as attacking
from curvdetect.report.guard import facts
from curvdetect.storage import save
from curvdetect.study.networks import load_lenet
from served import small_guard

pytest.importorskip("jinja2")

MODEL = ["--model", "curvdetect.study.networks:LeNet"]
NAMES = [
    "shirt",
    "<b>trouser</b>",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "top",
    "sneaker",
    "bag",
    "boot",
]
SEARCH = {
    "attack": "JointAttack",
    "n_images": 60,
    "norm_to_fool": 0.4,
    "norm_to_evade": 1.0,
    "target_fpr": 0.1,
}


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    path = tmp_path_factory.mktemp("guard") / "guard.skops"
    model = TorchModel(
        load_lenet("fashion-mnist"), input_shape=(1, 28, 28), class_names=NAMES
    )
    save(small_guard(model, verbose=1), path)
    return path


@pytest.fixture
def arrays(tmp_path, images):
    X, y = images
    np.savez(tmp_path / "new.npz", X=X, y=y)
    return tmp_path / "new.npz"


@pytest.fixture
def folders(tmp_path, images):
    """A folder a class: by its name, but for one of which a folder cannot be named."""
    for position, (image, label) in enumerate(zip(*images, strict=True)):
        folder = tmp_path / "pictures" / (str(label) if label == 1 else NAMES[label])
        folder.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray(np.uint8(np.round(255 * image[0])))
        grey.save(folder / f"{position:02}.png")
    (tmp_path / "pictures" / "bag" / "broken.png").write_bytes(b"nonsense")
    return tmp_path / "pictures"


@pytest.fixture
def few_attacks(monkeypatch):
    lessons = attacking.curriculum
    monkeypatch.setattr(attacking, "curriculum", lambda *a: lessons(*a)[1:3])


def run(guard, images, out, *more):
    argv = ["report", str(guard), *MODEL, "--images", str(images), "--out", str(out)]
    return cli.main([*argv, *more])


@pytest.mark.usefixtures("few_attacks")
def test_a_page_from_files(guard, arrays, tmp_path, capsys):
    out = tmp_path / "made" / "report"
    (tmp_path / "evasion.json").write_text(json.dumps(SEARCH))
    more = ["--evasion", str(tmp_path / "evasion.json"), "--n-attacked", "12"]
    assert run(guard, arrays, out, *more) == 0
    printed, said = capsys.readouterr()
    assert printed == ""
    assert f"40 images; the report is {out}/report.html" in said
    assert [each.name for each in out.iterdir()] == ["report.html"]
    text = (out / "report.html").read_text()
    assert "<svg" in text
    for expected in (
        "guard.skops",
        "curvdetect.study.networks:LeNet",
        "&lt;b&gt;trouser&lt;/b&gt;",
        "those in new.npz",
        "2.5 times",
        "on 12 of the images given",
    ):
        assert expected in text, expected
    assert "<b>" not in text


def test_folders_tell_the_labels(guard, folders, tmp_path, images, capsys):
    assert run(guard, folders, tmp_path / "out", "--n-attacked", "0") == 0
    assert "refused bag/broken.png" in capsys.readouterr().err
    text = (tmp_path / "out" / "report.html").read_text()
    assert "the folders that the pictures lie in" in text
    X, y = images
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    right = int((model.predict(np.round(255 * X) / np.float32(255)) == y).sum())
    assert f"Of {right} images that the network gets right" in text
    assert "none of the images were attacked" in text


def test_a_report_twice_is_the_same(guard, arrays, tmp_path, few_attacks):
    texts = []
    for name in ("one", "other"):
        assert run(guard, arrays, tmp_path / name, "--n-attacked", "12") == 0
        text = (tmp_path / name / "report.html").read_text()
        texts.append(re.sub(r"\d{4}-\d\d-\d\d", "", text))  # midnight may pass
    assert texts[0] == texts[1]


@pytest.fixture
def never_measured(monkeypatch):
    """What is refused, is refused before the long work."""
    monkeypatch.setattr(facts, "measured", lambda *a, **k: pytest.fail("too late"))


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--n-attacked", "-1"], "n_attacked must be 0, or at least 10"),
        (["--n-attacked", "9"], "n_attacked must be 0, or at least 10"),
        (["--labels", "nowhere.csv"], "labels: there is no nowhere.csv"),
        (["--evasion", "nowhere.json"], "nowhere.json"),
        (["--images", "nowhere"], "images: there is no nowhere"),
        (["--device", "nothing"], "device must be one that torch can use here"),
        (["--companion-weights", "w.pt"], "companion_weights needs companion"),
    ],
)
def test_what_is_refused(guard, arrays, tmp_path, capsys, more, why):
    assert run(guard, arrays, tmp_path / "out", *more) == 1
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("never_measured")
def test_files_that_are_something_else(guard, arrays, tmp_path, capsys):
    assert run(guard, arrays, arrays) == 1
    assert "out must be a folder; " in capsys.readouterr().err
    assert run(arrays, arrays, tmp_path / "out") == 1
    assert (
        "must be a file that curvdetect.storage.save wrote" in capsys.readouterr().err
    )


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "evasion must be a JSON file"),
        ("[]", "must hold at least one search"),
        ("[3]", "must hold objects with attack, n_images, norm_to_fool"),
        (json.dumps({"attack": "one"}), r"has one with ['attack']"),
        (json.dumps({**SEARCH, "attack": 3}), "attack must be a text; got 3"),
        (json.dumps({**SEARCH, "n_images": 0}), "n_images must be a positive integer"),
        (json.dumps({**SEARCH, "norm_to_fool": -1}), "norm_to_fool must be a positive"),
        (json.dumps({**SEARCH, "norm_to_evade": "x"}), "norm_to_evade must be a pos"),
        (json.dumps({**SEARCH, "largest_norm": 0}), "largest_norm must be a positive"),
        (
            json.dumps({**SEARCH, "n_never": 61}),
            "integer from 0 to n_images=60; got 61",
        ),
        (json.dumps({**SEARCH, "n_never": True}), "integer from 0 to n_images=60"),
        (json.dumps({**SEARCH, "interval": 3}), "interval must be two numbers; got 3"),
        (json.dumps({**SEARCH, "interval": [-1, 2]}), "interval must be a positive"),
        (json.dumps({**SEARCH, "interval": [3, 2]}), "interval must not fall"),
        (
            json.dumps({**SEARCH, "other": 3}),
            "and perhaps n_never, largest_norm, inter",
        ),
        (
            json.dumps({**SEARCH, "target_fpr": 5}),
            "target_fpr must be strictly between",
        ),
    ],
)
def test_evasion_that_is_none(guard, arrays, tmp_path, capsys, content, why):
    path = tmp_path / "evasion.json"
    path.write_text(content)
    assert run(guard, arrays, tmp_path / "out", "--evasion", str(path)) == 1
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_an_extra_that_is_missing(
    guard, arrays, tmp_path, capsys, monkeypatch, missing
):
    monkeypatch.setitem(sys.modules, missing, None)
    assert run(guard, arrays, tmp_path / "out") == 1
    assert "pip install 'curvdetect[report]'" in capsys.readouterr().err


def test_a_network_without_boundaries(guard, arrays, tmp_path, capsys, monkeypatch):
    """Nothing can be attacked: the error says what to do, and nothing is written."""
    monkeypatch.setattr(
        attacking,
        "minimal_points",
        lambda model, x, y, verbose: (x, torch.full((len(x),), torch.inf)),
    )
    assert run(guard, arrays, tmp_path / "out") == 1
    assert "give n_attacked=0" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_it_is_listed_and_its_defaults_are_those_of_the_function(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "report " in capsys.readouterr().out
    options = vars(make_parser().parse_args(["report", "g", *MODEL, "--images", "X"]))
    defaults = report.run_report.__kwdefaults__
    named = {name: options[name] for name in defaults}
    assert {**named, "out": str(named["out"])} == defaults
