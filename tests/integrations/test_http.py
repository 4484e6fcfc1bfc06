"""The HTTP example, asked by a real client over the loopback."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from curvdetect import CurvatureGuard, GuardedClassifier, TorchModel
from curvdetect.network import Preparation
from curvdetect.study.datasets import load_fashion_mnist_sample

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
Image = pytest.importorskip("PIL.Image")


def picture(values):
    file = io.BytesIO()
    Image.fromarray(np.round(255 * values).astype(np.uint8)).save(file, "png")
    return file.getvalue()


def test_answers_are_the_guards(http):
    ask, guard = http
    X, _ = load_fashion_mnist_sample()
    bodies = [picture(image[0]) for image in X[:8]]
    with ThreadPoolExecutor(8) as pool:  # at once
        answers = list(pool.map(ask, bodies))
    found = guard(torch.from_numpy(X[:8]))
    for position, (status, answer) in enumerate(answers):
        assert status == 200
        assert answer["label"] == int(found.label[position])
        assert answer["model_label"] == int(found.logits[position].argmax())
        assert answer["recovered_label"] == int(found.recovered_label[position])
        assert answer["flagged"] == bool(found.flagged[position])
        assert answer["score"] == pytest.approx(float(found.score[position]), abs=1e-3)


def test_another_method_and_another_place(http):
    ask, _ = http
    assert ask(None, method="GET")[0] == 405
    assert ask(b"", path="/classify/other")[0] == 404


def test_pictures_of_any_size_and_names(lenet, images, http_with):
    names = [f"name {k}" for k in range(10)]
    prepare = Preparation((28, 28), 28)
    model = TorchModel(
        lenet, input_shape=(1, 28, 28), class_names=names, preparation=prepare
    )
    guard = GuardedClassifier(model, detector="threshold", target_fpr=0.1).fit(*images)
    ask = http_with(CurvatureGuard(guard))
    large = Image.fromarray(np.uint8(255 * images[0][0, 0])).resize((90, 56))
    file = io.BytesIO()
    large.save(file, "png")
    status, answer = ask(file.getvalue())
    assert status == 200
    x = np.asarray(prepare.apply(large), np.float32)[None, None] / 255
    found = guard.assess(x)
    assert answer["label"] == found.label[0]
    for label in ("label", "model_label", "recovered_label"):
        assert answer[f"{label}_name"] == getattr(found, f"{label}_name")[0]
