"""The HTTP example, asked by a real client over the loopback."""

import io
import json
import runpy
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from curvdetect.datasets import load_fashion_mnist_sample

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
Image = pytest.importorskip("PIL.Image")
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "serve_http.py"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def guard(example):
    return example["calibrated_guard"]()


@pytest.fixture(scope="module")
def url(example, guard):
    import uvicorn

    config = uvicorn.Config(example["make_app"](guard), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/classify"
    server.should_exit = True
    thread.join(timeout=10)


def ask(url, body, method="POST"):
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with DIRECT.open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def picture(values, **options):
    file = io.BytesIO()
    Image.fromarray(np.round(255 * values).astype(np.uint8)).save(
        file, "png", **options
    )
    return file.getvalue()


def test_answers_are_the_guards(url, guard):
    X, _ = load_fashion_mnist_sample()
    bodies = [picture(image[0]) for image in X[:8]]
    with ThreadPoolExecutor(8) as pool:  # at once
        answers = list(pool.map(lambda body: ask(url, body), bodies))
    found = guard(torch.from_numpy(X[:8]))
    for position, (status, answer) in enumerate(answers):
        assert status == 200
        assert answer["label"] == int(found.label[position])
        assert answer["model_label"] == int(found.logits[position].argmax())
        assert answer["recovered_label"] == int(found.recovered_label[position])
        assert answer["flagged"] == bool(found.flagged[position])
        assert answer["score"] == pytest.approx(float(found.score[position]), abs=1e-3)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 422, "cannot identify image file"),
        (b"\x89PNG\r\n\x1a\n", 422, "no such picture"),
        (picture(np.zeros((28, 28)))[:50], 422, "no such picture"),
        (picture(np.zeros((30, 28))), 422, "it has 28 x 30 pixels, not 28 x 28"),
        (b"GIF89a" + b"\0" * 2**20, 413, "more than 1048576 bytes"),
        (json.dumps({"image": [[0]]}).encode(), 422, "cannot identify image file"),
    ],
    ids=["empty", "no_content", "cut_off", "other_size", "too_large", "json"],
)
def test_bad_requests_are_told_why(url, body, status, message):
    answered, answer = ask(url, body)
    assert answered == status
    assert message in answer["detail"]
    assert ask(url, picture(np.zeros((28, 28))))[0] == 200  # it serves on


def test_another_method_and_another_place(url):
    assert ask(url, None, method="GET")[0] == 405
    assert ask(url + "/other", b"")[0] == 404
