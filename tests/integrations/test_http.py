"""The HTTP example, asked by a real client over the loopback."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

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
