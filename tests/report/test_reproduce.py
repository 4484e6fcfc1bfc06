import json

import numpy as np
import pytest
import torch
from PIL import Image

from curvdetect import cli
from curvdetect.geometry import goldman_curvature
from curvdetect.report import reproduce
from curvdetect.report.goldman import goldman_features
from curvdetect.report.sections import principal_curvatures, scores
from curvdetect.study import datasets


def test_reproduce_on_the_embedded_sample(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reproduce, "_MIN_IMAGES", 30)  # a minute less than 60
    for module in (reproduce, scores):
        monkeypatch.setattr(module, "N_EACH", 10)
    monkeypatch.setattr(principal_curvatures, "_N_IMAGES", 2)
    argv = ["reproduce", "--n-images", "30", "--out", str(tmp_path)]
    assert cli.main(argv) == 0
    assert "detection accuracy" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    page = (tmp_path / "README.md").read_text()
    for figures in results["figures"].values():
        for mean, low, high in figures.values():
            assert low <= mean <= high
            assert f"{mean:.3f} ({low:.2f} to {high:.2f})" in page
        assert figures["detection accuracy"][0] > 0.7
        assert figures["relabelling accuracy"][0] > 0.64
    for k in range(2, 7):
        assert f"figure{k}.png" in page
        pixels = np.asarray(Image.open(tmp_path / f"figure{k}.png").convert("L"))
        assert pixels.std() > 10, k  # something is drawn


def test_the_reports_measure_is_goldmans_formula(model, images):
    X = images[0][:2]
    features = goldman_features(model, X)
    predicted = model.predict(X)
    assert np.isnan(features[np.arange(2), predicted]).all()
    other = (predicted + 3) % 10
    margin = model.margin(torch.from_numpy(predicted), torch.from_numpy(other))
    expected = goldman_curvature(margin, torch.from_numpy(X), batch_size=500)
    np.testing.assert_allclose(
        features[np.arange(2), other], expected.numpy(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--n-images", "20"], "n_images must be at least 60; got 20"),
        (["--dataset", "mnist"], "mnist is not in /nowhere"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, monkeypatch, argv, message):
    def missing(*args, **kwargs):
        raise FileNotFoundError("mnist is not in /nowhere")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    assert cli.main(["reproduce", *argv, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
