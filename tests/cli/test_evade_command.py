"""The command evade: a file for the report, and what it refuses before it begins."""

import json
import math

import numpy as np
import pytest
from quickly import learn_little, search_little

from curvdetect import GuardedClassifier, LearnedDetector, TorchModel, cli, evasion
from curvdetect.cli import evade
from curvdetect.cli._parser import make_parser
from curvdetect.report.guard.evasion import read_evasion
from curvdetect.storage import save
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from served import small_guard

MODEL = ["--model", "curvdetect.study.networks:LeNet"]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    path = tmp_path_factory.mktemp("guard") / "guard.skops"
    X, y = load_fashion_mnist_sample()
    with pytest.MonkeyPatch.context() as monkeypatch:
        learn_little(monkeypatch)
        fitted = GuardedClassifier(
            TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28)),
            detector=LearnedDetector(
                target_fpr=0.1, self_test=False, random_state=0, verbose=1
            ),
        ).fit(X[:90], y[:90])
    save(fitted, path)
    return path


@pytest.fixture
def arrays(tmp_path):
    X, y = load_fashion_mnist_sample()
    np.savez(tmp_path / "new.npz", X=X[90:122], y=y[90:122])
    return tmp_path / "new.npz"


def run(guard, images, out, *more):
    argv = ["evade", str(guard), *MODEL, "--images", str(images), "--out", str(out)]
    return cli.main([*argv, *more])


def test_it_writes_what_the_report_reads(guard, arrays, tmp_path, capsys, monkeypatch):
    search_little(monkeypatch)
    out = tmp_path / "evasion.json"
    assert run(guard, arrays, out, "--n-attacked", "3") == 0
    printed, said = capsys.readouterr()
    assert printed == ""
    assert "curvdetect: 32 images; labels: those in new.npz" in said
    best, *others = read_evasion(out)
    assert len(others) == 6
    for each in others:
        assert f"\n{each.attack}: " in said
    assert f"the figures are in {out}" in said
    assert best.n_images == 3
    assert best.norm_to_evade >= best.norm_to_fool
    assert best.cost == min(each.cost for each in [best, *others])
    assert f"evasion cost: {best.cost:.3g} (95 %: " in said
    assert "examine" not in said  # the detector's own bars
    assert not list(tmp_path.glob(".*partial"))

    pytest.importorskip("jinja2")
    argv = ["report", str(guard), *MODEL, "--images", str(arrays), "--n-attacked", "0"]
    page = tmp_path / "report"
    assert cli.main([*argv, "--evasion", str(out), "--out", str(page)]) == 0
    text = (page / "report.html").read_text()
    assert best.attack in text
    assert "Not measured." not in text


def fake(monkeypatch, result):
    """Measure nothing; return what would be measured on, as it was given."""
    given = {}

    def measured(guard, X, y, **settings):
        given.update(X=X, y=y, **settings)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(evasion, "measure_evasion", measured)
    return given


FOUND = evasion.MeasuredEvasion(
    fooling={"one": np.ones(2)},
    evading={"other": np.full(2, math.inf)},
    images=np.zeros((2, 1, 28, 28)),
    rows=np.array([0, 3]),
    largest_norms={"other": 10.0},
    target_fpr=0.1,
)


def test_images_are_taken_from_all_classes_in_an_order_of_the_seed(
    guard, arrays, tmp_path, monkeypatch
):
    X, y = (np.load(arrays)[name] for name in ("X", "y"))
    orders = []
    for seed in (0, 0, 1):
        given = fake(monkeypatch, FOUND)
        found = evade.run_evade(
            MODEL[1], guard, arrays, out=tmp_path / "e.json", seed=seed, thorough=True
        )
        assert (given["light"], given["n_attacked"]) == (False, 40)
        np.testing.assert_array_equal(X[found.rows], given["X"][FOUND.rows])
        np.testing.assert_array_equal(y[found.rows], given["y"][FOUND.rows])
        orders.append(list(given["y"]))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != list(y)


def test_without_labels_the_networks_are_taken(
    guard, arrays, tmp_path, monkeypatch, capsys
):
    np.save(tmp_path / "new.npy", np.load(arrays)["X"])
    given = fake(monkeypatch, FOUND)
    assert run(guard, tmp_path / "new.npy", tmp_path / "evasion.json") == 0
    assert given["y"] is None
    said = capsys.readouterr().err
    assert "labels: the network's, taken as true: none were given" in said
    assert "evasion cost: not found" in said
    (best, _) = read_evasion(tmp_path / "evasion.json")
    assert math.isinf(best.norm_to_evade)
    assert json.loads((tmp_path / "evasion.json").read_text())[0]["n_never"] == 2


def test_an_interruption_leaves_the_file_that_was_there(
    guard, arrays, tmp_path, monkeypatch, capsys
):
    fake(monkeypatch, KeyboardInterrupt())
    out = tmp_path / "evasion.json"
    out.write_text("the earlier one")
    assert run(guard, arrays, out) == 130
    assert capsys.readouterr().err.endswith("curvdetect: interrupted\n")
    assert out.read_text() == "the earlier one"
    assert sorted(each.name for each in tmp_path.iterdir()) == [out.name, arrays.name]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--n-attacked", "0"], "n_attacked must be a positive integer"),
        (["--labels", "nowhere.csv"], "labels: there is no nowhere.csv"),
        (["--images", "nowhere"], "images: there is no nowhere"),
        (["--out", "no/where.json"], "out: there is no folder no"),
        (["--out", "."], "out must be a file; . is a folder"),
        (["--device", "nothing"], "device must be one that torch can use here"),
        (["--companion-weights", "w.pt"], "companion_weights needs companion"),
    ],
)
def test_what_is_refused(guard, arrays, tmp_path, capsys, monkeypatch, more, why):
    fake(monkeypatch, AssertionError("too late"))
    assert run(guard, arrays, tmp_path / "evasion.json", *more) == 1
    assert why in capsys.readouterr().err


def test_a_guard_that_learned_nothing(arrays, tmp_path, capsys, monkeypatch):
    fake(monkeypatch, AssertionError("too late"))
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    save(small_guard(model), tmp_path / "guard.skops")
    assert run(tmp_path / "guard.skops", arrays, tmp_path / "evasion.json") == 1
    said = capsys.readouterr().err
    assert "guard must have a learned detector" in said
    assert "Only a learned guard can be attacked so" in said


def test_it_is_listed_and_its_defaults_are_those_of_the_function(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "evade " in capsys.readouterr().out
    options = vars(make_parser().parse_args(["evade", "g", *MODEL, "--images", "X"]))
    defaults = evade.run_evade.__kwdefaults__
    named = {name: options[name] for name in defaults}
    assert {**named, "out": str(named["out"])} == defaults
