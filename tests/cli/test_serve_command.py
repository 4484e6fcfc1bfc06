"""The command serve: its options, and what it refuses before it begins."""

import dataclasses
import socket

import numpy as np
import pytest

from curvdetect import GuardMonitor, TorchModel, cli
from curvdetect.cli._parser import make_parser
from curvdetect.cli.serve import _loaded_monitor
from curvdetect.serving import Limits, create_app, run_server
from curvdetect.storage import save
from served import small_guard

for needed in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(needed)

MODEL = ["--model", "curvdetect.study.networks:LeNet"]


def test_limits_are_those_of_the_service():
    options = vars(make_parser().parse_args(["serve", "guard.skops", *MODEL]))
    limits = dataclasses.asdict(Limits())
    assert {name: options[name] for name in limits} == limits


@pytest.fixture
def guard(model, tmp_path):
    fitted = small_guard(model)
    save(fitted, tmp_path / "guard.skops")
    return fitted


def refused(capsys, tmp_path, *argv):
    assert cli.main(["serve", str(tmp_path / "guard.skops"), *MODEL, *argv]) == 1
    return capsys.readouterr().err


def test_a_port_that_is_taken(guard, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        said = refused(capsys, tmp_path, "--port", port)
    assert f"cannot listen at 127.0.0.1, port {port}: " in said


def test_a_host_that_is_none(guard, tmp_path, capsys):
    said = refused(capsys, tmp_path, "--host", "nowhere.invalid")
    assert "cannot listen at nowhere.invalid, port 8000: " in said


def test_limits_that_are_none(tmp_path, capsys):
    said = refused(capsys, tmp_path, "--queue", "0")  # before the guard is looked for
    assert "queue must be a positive integer; got 0" in said


def test_monitors_that_are_none(guard, images, lenet, tmp_path, capsys):
    path = tmp_path / "monitor.skops"
    monitor = ["--monitor", str(path)]
    save(GuardMonitor(guard).fit(images[0]), path)
    said = refused(capsys, tmp_path, *monitor)
    assert "monitor must hold no network of its own" in said
    save(guard.detector_, path)
    said = refused(capsys, tmp_path, *monitor)
    assert "holds a CurvatureThresholdDetector" in said
    save(GuardMonitor(), path)
    assert "not fitted" in refused(capsys, tmp_path, *monitor)


def test_a_monitor_from_the_command_line(guard, images, tmp_path, capsys):
    np.save(tmp_path / "others.npy", images[0])
    argv = ["monitor", str(tmp_path / "guard.skops"), *MODEL, "--level", "0.05"]
    argv += ["--images", str(tmp_path / "others.npy")]
    out = tmp_path / "monitor.skops"
    assert cli.main([*argv, "--out", str(out)]) == 0
    flagged = int(guard.assess(images[0]).flagged.sum())
    assert f"40 images, {flagged} of them flagged; the monitor is in {out}" in (
        capsys.readouterr().err
    )
    monitor = _loaded_monitor(out)  # as serve takes it
    assert (monitor.n_calibration_, monitor.level) == (40, 0.05)
    assert monitor.update(guard.assess(images[0][:3])).n_images == 3
    assert cli.main([*argv, "--level", "1.5", "--out", str(out)]) == 1
    assert "level must be" in capsys.readouterr().err


def test_a_monitor_that_cannot_be_saved(guard, images, tmp_path):
    monitor = GuardMonitor().fit(guard.assess(images[0]))
    gone = tmp_path / "no such folder" / "monitor.skops"
    app = create_app(guard, monitor=monitor, monitor_file=gone)
    app.state.service.draining = True  # as SIGTERM does
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run_server(app, port=0)


def test_a_guard_for_other_images(lenet, tmp_path, capsys):
    model = TorchModel(lenet, input_shape=(1, 28, 28), bounds=(-1, 1))
    save(small_guard(model), tmp_path / "guard.skops")
    assert "must be for pictures in [0, 1]" in refused(capsys, tmp_path)
