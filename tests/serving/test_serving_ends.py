"""What a service does when it is full, late, broken, alarmed, or told to end."""

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from curvdetect import GuardMonitor, TorchModel
from curvdetect.serving import Limits, create_app
from curvdetect.storage import load, save
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet
from served import Client, npy, served, small_guard

for needed in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(needed)
pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def fitted():
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    return small_guard(model)


@pytest.fixture(scope="module")
def bodies():
    X, _ = load_fashion_mnist_sample()
    return [npy(image) for image in X[100:110]]


class Held:
    """Holds a guard's answers back until they are let go."""

    def __init__(self, guard, monkeypatch):
        self.go, self.began = threading.Event(), threading.Event()
        assess = guard.assess

        def assess_later(X):
            self.began.set()
            self.go.wait()
            return assess(X)

        monkeypatch.setattr(guard, "assess", assess_later)


@pytest.fixture
def held(fitted, monkeypatch):
    held = Held(fitted, monkeypatch)
    yield held
    held.go.set()


def test_a_full_queue_says_when_to_come_again(fitted, held, bodies):
    limits = Limits(queue=2, max_batch=1, timeout=3600)
    with (
        served(fitted, limits=limits) as (ask, service),
        ThreadPoolExecutor(2) as pool,
    ):
        taken = [pool.submit(ask, bodies[0])]
        held.began.wait()
        taken.append(pool.submit(ask, bodies[1]))
        while service.n_under_way < 2:
            time.sleep(0.01)
        status, content, headers = ask.whole(bodies[2])
        assert status == 503
        assert headers["Retry-After"] == "1"
        assert "too many requests" in json.loads(content)["detail"]
        held.go.set()
        assert [answer.result()[0] for answer in taken] == [200, 200]
        assert ask(bodies[2])[0] == 200


def test_images_for_which_there_is_no_room(fitted, held, bodies):
    limits = Limits(queue=3, max_batch=1, timeout=3600)
    three = npy(load_fashion_mnist_sample()[0][:3])
    with (
        served(fitted, limits=limits) as (ask, service),
        ThreadPoolExecutor(2) as pool,
    ):
        taken = [pool.submit(ask, bodies[0])]
        held.began.wait()
        taken.append(pool.submit(ask, bodies[1]))
        while not service._batcher.n_waiting:
            time.sleep(0.01)
        status, content, headers = ask.whole(three)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(content)["detail"] == "too many images wait"
        held.go.set()
        assert [answer.result()[0] for answer in taken] == [200, 200]


def test_who_waits_too_long_is_told(fitted, held, bodies):
    with served(fitted, limits=Limits(timeout=0.2)) as (ask, _):
        status, answer = ask(bodies[0])
        assert status == 504
        assert answer["detail"] == "the images were not done within 0.2 seconds"
        held.go.set()


def test_a_body_that_does_not_come(fitted):
    with served(fitted, limits=Limits(timeout=0.2)) as (ask, service):
        never = threading.Event()

        def slowly():
            yield b"P5 28 28 255 "
            never.wait()

        asking = threading.Thread(target=lambda: _quietly(ask, slowly()))
        asking.start()
        while b'requests_total{status="408"} 1.0' not in service.metrics.exposed():
            time.sleep(0.01)
        never.set()
        asking.join()


def _quietly(ask, body):
    with contextlib.suppress(OSError):  # the answer may come before it is written
        ask(body, method="POST")


def test_a_guard_that_fails(fitted, bodies, monkeypatch, caplog):
    def fail(X):
        raise RuntimeError("out of\nmemory")

    with served(fitted) as (ask, _):
        with monkeypatch.context() as failing:
            failing.setattr(fitted, "assess", fail)
            status, answer = ask(bodies[0])
        assert status == 500
        assert answer["detail"] == "the guard failed: out of memory"
        assert "a request could not be answered" in caplog.text
        assert ask(bodies[0])[0] == 200  # it goes on


def test_health_is_answered_while_the_network_computes(fitted, held, bodies):
    with served(fitted) as (ask, _), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, bodies[0])
        held.began.wait()
        assert ask(path="/health")[0] == 200
        assert not answer.done()
        held.go.set()
        assert answer.result()[0] == 200


# Monitors ------------------------------------------------------------------------


@pytest.fixture
def monitor(fitted):
    X, _ = load_fashion_mnist_sample()
    return GuardMonitor(random_state=0, target_fpr=0.1).fit(fitted.assess(X[200:260]))


def test_an_alarm_is_shown_and_said_once(fitted, tmp_path, caplog):
    path = tmp_path / "monitor.skops"
    X = load_fashion_mnist_sample()[0][260:272]
    lower = fitted.assess(X).score - 1  # than all that will come
    monitor, twin = (GuardMonitor(random_state=0).fit(lower) for _ in range(2))
    with (
        caplog.at_level(logging.WARNING, "curvdetect.serving"),
        served(fitted, monitor=monitor, monitor_file=path) as (ask, _),
    ):
        assert ask(path="/health")[1]["monitor"]["alarm"] is None
        for _ in range(3):
            assert ask(npy(X))[0] == 200
            state = twin.update(fitted.assess(X))
        said = ask(path="/health")[1]["monitor"]
        exposed = ask.whole(path="/metrics")[1].decode()
        assert not path.exists()
    assert said["alarm"] == state.alarm is not None
    assert (said["n_images"], said["alarm_at"]) == (36, state.alarm_at)
    assert f'curvdetect_monitor_alarm{{alarm="{state.alarm}"}} 1.0' in exposed
    assert "curvdetect_monitor_log10_martingale" in exposed
    assert caplog.text.count("the monitor has raised an alarm") == 1
    saved = load(path)
    assert saved.n_images_ == 36
    assert saved.alarm_ == state.alarm
    assert [file.name for file in tmp_path.iterdir()] == ["monitor.skops"]


def test_what_cannot_be_counted_is_answered(fitted, monitor, bodies, monkeypatch):
    def fail(found):
        raise ValueError("no such scores")

    with served(fitted, monitor=monitor) as (ask, _):
        monkeypatch.setattr(monitor, "update", fail)
        assert ask(bodies[0])[0] == 200


# What is refused before it begins --------------------------------------------------


def test_create_app_refuses(fitted, monitor, lenet):
    with pytest.raises(TypeError, match="guard must be a GuardedClassifier; got LeNet"):
        create_app(lenet)
    with pytest.raises(TypeError, match="monitor must be a GuardMonitor; got str"):
        create_app(fitted, monitor="monitor.skops")
    with pytest.raises(ValueError, match="monitor_file needs monitor; got 'm' alone"):
        create_app(fitted, monitor_file="m")
    model = TorchModel(lenet, input_shape=(1, 28, 28), bounds=(-1, 1))
    with pytest.raises(ValueError, match="images in \\[0, 1\\]; got one for \\(-1"):
        create_app(small_guard(model))


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_batch", "queue"])
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer; got 0"):
        Limits(**{name: 0})


# The end ---------------------------------------------------------------------------

#: A network that waits, in its first forward pass, until a file is there.
SLOW = """
import pathlib, time
from curvdetect.study.networks import LeNet

class Slow(LeNet):
    def forward(self, x):
        here = pathlib.Path(__file__).parent
        (here / "began").touch()
        while not (here / "go").exists():
            time.sleep(0.01)
        return super().forward(x)
"""


def test_sigterm_finishes_what_was_taken(fitted, monitor, bodies, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    save(fitted, tmp_path / "guard.skops")
    save(monitor, tmp_path / "monitor.skops")
    process = subprocess.Popen(
        f"{sys.executable} -m curvdetect serve guard.skops --model slow:Slow --port 0 "
        "--timeout 3600 --monitor monitor.skops".split(),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.stderr.readline()
        assert said.startswith("curvdetect: serving guard.skops at http://"), said
        ask = Client(said.split()[-1])
        with ThreadPoolExecutor(2) as pool:
            taken = pool.submit(ask, bodies[0])
            while not (tmp_path / "began").exists():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            while ask(path="/health")[1]["ready"]:
                time.sleep(0.01)
            status, content, headers = ask.whole(bodies[1])
            assert (status, headers["Retry-After"]) == (503, "1")
            assert b"about to end" in content
            assert not taken.done()
            (tmp_path / "go").touch()
            status, answer = taken.result()
        assert process.wait() == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert status == 200
    image = np.load(io.BytesIO(bodies[0]))
    assert answer["images"][0]["label"] == fitted.assess(image[None]).label[0]
    assert load(tmp_path / "monitor.skops").n_images_ == 1
    assert torch.is_grad_enabled()
