"""The command line with a second network: trained, fitted with, scored with."""

import json

import numpy as np
import pytest
import torch

from curvdetect import cli
from curvdetect.storage import load
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import LeNet, load_lenet

MODEL = "curvdetect.study.networks:LeNet"


@pytest.fixture
def files(tmp_path):
    X, _ = load_fashion_mnist_sample()
    torch.save(load_lenet("fashion-mnist").state_dict(), tmp_path / "w.pt")
    for name, rows in (("train", X[:150]), ("fit", X[150:260]), ("new", X[260:270])):
        np.savez(tmp_path / f"{name}.npz", X=rows)
    return tmp_path


def network(files):
    return [
        "--model",
        MODEL,
        "--weights",
        str(files / "w.pt"),
        "--input-shape",
        "1,28,28",
    ]


@pytest.mark.filterwarnings("ignore:.*self-test", "ignore:mean AUROC")
def test_train_fit_and_score(files, quick, capsys):
    out = files / "companion.pt"
    argv = ["companion", *network(files), "--images", str(files / "train.npz")]
    argv += ["--strength", "0.01", "0.03", "--epochs", "1", "--out", str(out)]
    assert cli.main(argv) == 0
    said = capsys.readouterr().err
    assert said.count("companion trained with CURE(strength=0.0") == 2
    assert "the weights are in" in said
    LeNet().load_state_dict(torch.load(out, weights_only=True))

    guard = files / "guard.skops"
    argv = ["fit", *network(files), "--images", str(files / "fit.npz")]
    argv += ["--companion", MODEL, "--companion-weights", str(out)]
    assert cli.main([*argv, "--target-fpr", "0.1", "--out", str(guard)]) == 0

    scores = files / "scores.json"
    argv = ["score", "--model", MODEL, "--companion", MODEL, "--guard", str(guard)]
    argv += ["--images", str(files / "new.npz"), "--out", str(scores)]
    assert cli.main(argv) == 0
    X = np.load(files / "new.npz")["X"]
    loaded = load(guard, LeNet(), companion=LeNet())
    found = [row["score"] for row in json.loads(scores.read_text())]
    np.testing.assert_allclose(found, loaded.assess(X).score, rtol=1e-5)
    capsys.readouterr()
    argv = ["score", "--model", MODEL, "--guard", str(guard)]
    assert cli.main([*argv, "--images", str(files / "new.npz")]) == 1
    assert "companion must be a network of the arch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--companion-weights", "w.pt"], "companion_weights needs companion"),
        (
            ["--companion", MODEL, "--detector", "threshold"],
            "out with a threshold",
        ),
    ],
)
def test_what_does_not_go_together(files, options, said, capsys):
    argv = ["fit", *network(files), "--images", str(files / "fit.npz"), *options]
    assert cli.main([*argv, "--out", str(files / "guard.skops")]) == 1
    assert said in capsys.readouterr().err


def test_a_folder_that_is_not_there(files, capsys):
    argv = ["companion", *network(files), "--images", str(files / "train.npz")]
    assert cli.main([*argv, "--out", str(files / "no" / "companion.pt")]) == 1
    assert "there is no folder" in capsys.readouterr().err
