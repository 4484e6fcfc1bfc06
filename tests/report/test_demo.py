import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import curvdetect
from curvdetect import cli
from curvdetect.report import demo
from curvdetect.study import datasets

DATA = os.environ.get("CURVDETECT_DATA")
#: Fewer images than it takes for a small rate.
FEW = pytest.mark.filterwarnings(
    "ignore:the rate of false positives",
    "ignore:mean AUROC",
    "ignore:the self-test found no attack",
    "ignore:THE DETECTOR IS HARDLY",
)


def test_demo_on_the_embedded_sample(tmp_path, capsys):
    assert cli.main(["demo", "--n-images", "300", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "What it says of itself" in printed
    assert "the report: 0.64" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    figures = results["figures"]
    assert results["target_fpr"] == 0.05
    assert figures["attack success"]["value"] > 0.85
    assert figures["AUROC"]["value"] > 0.93
    assert figures["relabel accuracy"]["value"] > 0.8
    for name in ("roc", "self-test", "images", "overview"):
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert pixels.std() > 10, name  # something is drawn


def test_the_demo_of_a_threshold(tmp_path, capsys):
    argv = ["demo", "--detector", "threshold", "--n-images", "200"]
    assert cli.main([*argv, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "AUROC" in printed
    assert "the report: 0.64" in printed

    results = json.loads((tmp_path / "results.json").read_text())
    figures = results["figures"]
    for figure in figures.values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    # 95 % intervals of some 85 images, at the figures of the whole sample
    assert figures["attack success"]["value"] > 0.85
    assert figures["AUROC"]["high"] > 0.90
    assert figures["AUROC"]["value"] > 0.85
    assert figures["relabel accuracy"]["value"] > 0.75
    assert figures["noisy images flagged"]["value"] <= 0.1
    assert results["test"]["clean"] > 80

    for name in ("roc", "relabel-rank", "curvature-profile", "images", "overview"):
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert pixels.std() > 10, name  # something is drawn


@FEW
def test_demo_on_digits(tmp_path, capsys):
    argv = ["demo", "--dataset", "digits", "--n-images", "150", "--out", str(tmp_path)]
    assert cli.main(argv) == 0
    assert json.loads((tmp_path / "results.json").read_text())["dataset"] == "digits"


@FEW
@pytest.mark.skipif(not DATA, reason="CURVDETECT_DATA is not set")
@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_demo_on_downloaded_images(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(demo, "_MIN_IMAGES", 30)  # few: it is about the data sets
    argv = ["demo", "--dataset", dataset, "--n-images", "30", "--out", str(tmp_path)]
    assert cli.main(argv) == 0
    assert json.loads((tmp_path / "results.json").read_text())["dataset"] == dataset


def test_missing_data_is_one_line(tmp_path, capsys, monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError("mnist is not in /nowhere")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    assert cli.main(["demo", "--dataset", "mnist", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error == "curvdetect: error: mnist is not in /nowhere\n"
    with pytest.raises(FileNotFoundError):
        cli.main(["demo", "--dataset", "mnist", "--out", str(tmp_path), "--debug"])


def test_missing_weights_say_where_they_should_be(tmp_path, capsys):
    (tmp_path / "cifar10").mkdir()
    blank = np.zeros((2, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cifar10" / "cifar10_test.npz", x=blank, y=np.zeros(2))
    argv = ["demo", "--dataset", "cifar10", "--data-dir", str(tmp_path)]
    assert cli.main([*argv, "--out", str(tmp_path / "out")]) == 1
    assert "resnet20-12fca82f.th" in capsys.readouterr().err


def test_too_few_images(tmp_path, capsys):
    assert cli.main(["demo", "--n-images", "5", "--out", str(tmp_path)]) == 1
    assert "n_images must be at least 100; got 5" in capsys.readouterr().err


def test_interrupted(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "load_fashion_mnist_sample", interrupted)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 130


@pytest.mark.parametrize("argv", [["--help"], ["demo", "--help"], ["--version"]])
def test_help(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["--help"], ["fit", "--help"], ["demo", "--help"], ["--version"]]
)
def test_help_needs_neither_torch_nor_scikit_learn(argv):
    """They take seconds to import."""
    code = f"""
import sys
from curvdetect.cli import main
try:
    main({argv})
except SystemExit:
    print(sorted({{"numpy", "sklearn", "torch"}} & set(sys.modules)), file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout
    assert run.stderr.decode().strip() == "[]"


def test_the_package_says_what_it_has_before_it_imports_it():
    code = """
import sys, curvdetect
assert set(curvdetect.__all__) <= set(dir(curvdetect))
assert "torch" not in sys.modules
from curvdetect import *
assert TorchModel is curvdetect.TorchModel
assert CurvatureGuard is curvdetect.estimators.CurvatureGuard
assert not hasattr(curvdetect, "Nothing")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_m():
    run = [sys.executable, "-m", "curvdetect", "--version"]
    assert subprocess.check_output(run, text=True).strip() == curvdetect.__version__


def test_the_shipped_files_are_small():
    assets = Path(curvdetect.__file__).parent / "assets"
    assert sum(f.stat().st_size for f in assets.iterdir()) < 1_000_000
