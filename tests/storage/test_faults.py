"""Disks that are full and processes that are killed: what is there stays whole."""

import errno
import os
import random
import re
import shutil
import signal
import stat
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from killed import MOMENTS, saving, sharding, started
from sklearn.base import clone

from curvdetect import (
    CurvatureFeaturizer,
    GuardMonitor,
    TorchModel,
    cli,
)
from curvdetect._base.files import written_at_once
from curvdetect.report._experiment import write_results
from curvdetect.report._saving import save_picture
from curvdetect.storage import load, save, transform_in_shards
from curvdetect.storage.tables import written_table
from curvdetect.study.networks import LeNet, load_lenet
from curvdetect.study.training._checkpoint import Checkpoint
from served import small_guard

resource = pytest.importorskip("resource")  # not on Windows
MODEL = ["--model", "curvdetect.study.networks:LeNet"]
PARTIAL = ".curvdetect-partial"
_LONG = 300  # seconds: a process that does not die fails its test


@contextmanager
def full_disk(n_bytes=0):
    """Let no file become longer: then the system says so, as it does of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def guard():
    model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
    return small_guard(model)


@pytest.fixture
def out(tmp_path):
    """A folder for what is written alone."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


# A full disk ----------------------------------------------------------------------


def saved(path, guard, **settings):
    save(guard, path, **settings)


def monitored(path, guard):
    """End a service that has a monitor."""
    serving = pytest.importorskip("curvdetect.serving")
    for needed in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        pytest.importorskip(needed)
    monitor = GuardMonitor(random_state=0).fit(np.linspace(-1, 0, 60))
    app = serving.create_app(guard, monitor=monitor, monitor_file=path)
    app.state.service.close()


def tabled(path, guard):
    with written_table(path, ["image", "score"]) as write:
        for _ in range(5):
            write([["shirt.png"] * 100, np.linspace(0, 1, 100)])


def parquet(path, guard):
    pytest.importorskip("pyarrow")
    tabled(path, guard)


def drawn(path, guard):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([0, 1])
    save_picture(figure, path, dpi=50)


def trained(path, guard):
    parts = {"module": guard.model_.module}
    Checkpoint(path, parts=parts, settings={}).save(1)


WRITERS = {
    "guard.skops": saved,
    "small.skops": lambda path, guard: saved(path, guard, weights=False),
    "monitor.skops": monitored,
    "scores.csv": tabled,
    "scores.json": tabled,
    "scores.parquet": parquet,
    "figure.png": drawn,
    "results.json": lambda path, _: write_results({"auroc": [0.5] * 99}, path.parent),
    "checkpoint.pt": trained,
}


@pytest.mark.parametrize("room", [0, 0.5])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(name, room, guard, out):
    path = out / name
    WRITERS[name](path, guard)
    before = path.read_bytes()
    with (
        full_disk(int(room * len(before))),
        pytest.raises(OSError, match=re.escape(f"{path} cannot be written: ")) as told,
    ):
        WRITERS[name](path, guard)
    assert told.value.errno == errno.EFBIG
    assert "the earlier one is unchanged. Free some space there" in str(told.value)
    assert names(out) == [name]
    assert path.read_bytes() == before
    path.unlink()
    with full_disk(int(room * len(before))), pytest.raises(OSError, match=name) as told:
        WRITERS[name](path, guard)
    assert "earlier" not in str(told.value)
    assert names(out) == []


@pytest.fixture(scope="module")
def featurizer(guard, images):
    cheap = {"features": ("laplacian",), "n_directions": 1, "step": 0.4}
    return CurvatureFeaturizer(guard.model_, random_state=0, **cheap).fit(images[0])


@pytest.fixture
def measured(featurizer, monkeypatch):
    """How many images each call of the featurizer was given."""
    measure, sizes = featurizer.transform, []

    def transform(images):
        sizes.append(len(images))
        return measure(images)

    monkeypatch.setattr(featurizer, "transform", transform)
    return sizes


def test_a_full_disk_keeps_finished_shards(
    featurizer, measured, images, out, monkeypatch
):
    savez = np.savez

    def write(file, **arrays):
        with full_disk(500) if len(measured) == 3 else nullcontext():
            savez(file, **arrays)

    monkeypatch.setattr(np, "savez", write)
    with pytest.raises(OSError, match=r"features-000000020\.npz cannot be written: "):
        transform_in_shards(featurizer, images[0], out, shard_size=10, verbose=0)
    monkeypatch.setattr(np, "savez", savez)
    assert names(out) == [
        "features-000000000.npz",
        "features-000000010.npz",
        "manifest.json",
    ]
    assert measured == [10, 10, 10]
    F = transform_in_shards(featurizer, images[0], out, shard_size=10, verbose=0)
    assert measured == [10] * 5  # two of them anew
    np.testing.assert_allclose(F, featurizer.transform(images[0]), rtol=1e-3, atol=1e-4)


# The command line on a full disk ---------------------------------------------------


@pytest.fixture
def commands(guard, images, tmp_path, out, monkeypatch):
    """Each command that writes files, its files, and where it reads from."""
    torch.save(guard.model_.module.state_dict(), tmp_path / "w.pt")
    np.savez(tmp_path / "images.npz", X=images[0])
    np.savez(tmp_path / "two.npz", X=images[0][:2])
    save(guard, tmp_path / "guard.skops")
    monkeypatch.setattr(
        "curvdetect.study.training.train_companion",
        lambda model, X, **_: SimpleNamespace(model=model),
    )
    pictures, two = (
        ["--images", str(tmp_path / name)] for name in ("images.npz", "two.npz")
    )
    network = [*MODEL, "--weights", str(tmp_path / "w.pt"), "--input-shape", "1,28,28"]
    quick = ["--detector", "threshold", "--target-fpr", "0.1", "--n-boundaries", "1"]
    guarded = [*MODEL, "--guard", str(tmp_path / "guard.skops")]
    return {
        "fit": ["fit", *network, *pictures, *quick, "--out", str(out / "g.skops")],
        "companion": ["companion", *network, *two, "--out", str(out / "c.pt")],
        "score": ["score", *guarded, *two, "--out", str(out / "s.csv")],
        "profile": ["curvature-profile", *network, *two, "--out", str(out)],
    }


@pytest.mark.parametrize("command", ["fit", "companion", "score", "profile"])
def test_a_command_says_what_could_not_be_written(command, commands, out, capsys):
    if command == "profile":
        pytest.importorskip("matplotlib")
    assert cli.main(commands[command]) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    with full_disk(100):
        assert cli.main(commands[command]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("curvdetect: error: [Errno 27] ")
    assert any(f"{path} cannot be written: File too large" in said for path in before)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_standard_output_that_is_full(commands, capfd, monkeypatch):
    to_stdout = [*commands["score"][:-1], "-"]
    with Path("/dev/full").open("w") as full, monkeypatch.context() as changed:
        changed.setattr(sys, "stdout", full)
        assert cli.main(to_stdout) == 1
    assert "standard output cannot be written: No space left" in capfd.readouterr().err


def test_what_fails_meanwhile_is_not_said_of_the_table(out):
    with (
        pytest.raises(PermissionError, match="^.Errno 13. no such picture$"),
        written_table(out / "scores.csv", ["image"]),
    ):
        raise PermissionError(errno.EACCES, "no such picture")
    assert names(out) == []


# Processes that are killed ---------------------------------------------------------


@pytest.fixture(scope="module")
def two_guards(guard, tmp_path_factory):
    """Files of guards with other weights, and so another threshold."""
    network = load_lenet("fashion-mnist")
    with torch.no_grad():
        next(network.parameters()).mul_(0.9)
    paths = [tmp_path_factory.mktemp("guards") / name for name in ("old", "new")]
    save(guard, paths[0])
    save(small_guard(TorchModel(network, input_shape=(1, 28, 28))), paths[1])
    return paths


def holds(path):
    """Return what tells one guard's file from another's, in all its parts."""
    guard = load(path, LeNet())
    return guard.weights_, float(guard.detector_.threshold_)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_guard_that_is_killed_while_it_is_saved(moment, two_guards, out):
    old, new = two_guards
    path = out / "guard.skops"
    shutil.copy(old, path)
    process = started(saving, [new], path, moment)
    process.join(_LONG)
    assert process.exitcode == -signal.SIGKILL
    assert holds(path) == holds(new if moment == "named" else old)
    left = [name for name in names(out) if name != "guard.skops"]
    assert len(left) == (moment != "named")
    assert all(name.endswith(PARTIAL) for name in left)
    save(load(new, LeNet()), path)
    assert names(out) == ["guard.skops"]
    assert holds(path) == holds(new)


def test_a_guard_is_old_or_new_whenever_it_is_killed(two_guards, out):
    path = out / "guard.skops"
    shutil.copy(two_guards[0], path)
    known, rng = [holds(each) for each in two_guards], random.Random(0)
    begun = path.stat().st_ino
    process = started(saving, two_guards, path)
    for _ in range(5):
        while path.stat().st_ino == begun:  # until it has been saved at least once
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join(_LONG)
        assert holds(path) in known
        assert len(names(out)) <= 2  # what the last one left is gone
        begun = path.stat().st_ino
        process = started(saving, two_guards, path)
    process.kill()
    process.join(_LONG)


@pytest.mark.parametrize("moment", MOMENTS)
def test_shards_that_are_killed(moment, featurizer, measured, images, tmp_path, out):
    fitted, X = tmp_path / "featurizer.joblib", tmp_path / "X.npy"
    joblib.dump(clone(featurizer).fit(images[0]), fitted)  # without what counts
    np.save(X, images[0])
    process = started(sharding, fitted, X, out, 10, moment, 3)
    process.join(_LONG)
    assert process.exitcode == -signal.SIGKILL
    finished = len(list(out.glob("features-*")))
    assert finished == (3 if moment == "named" else 2)
    F = transform_in_shards(featurizer, images[0], out, shard_size=10, verbose=0)
    assert measured == [10] * (4 - finished)
    assert len(names(out)) == 5  # and nothing half written
    np.testing.assert_allclose(F, featurizer.transform(images[0]), rtol=1e-3, atol=1e-4)


# What takes the place of a file ----------------------------------------------------


def test_two_writers_of_one_file(out):
    path = out / "shard"
    with written_at_once(path) as first:
        first.write_text("first")
        with written_at_once(path) as second:
            assert first.exists()  # it is not abandoned: its process lives
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert names(out) == ["shard"]


def test_only_what_was_left_is_removed(out):
    kept = [f".shard-notes{PARTIAL}", f".shard-00000000{PARTIAL}.kept", "shard-1"]
    for name in [*kept, f".shard-0123abcd{PARTIAL}"]:
        (out / name).touch()
    with written_at_once(out / "shard") as partial:
        partial.touch()
    assert names(out) == sorted([*kept, "shard"])


def test_a_new_file_is_as_others(out):
    (out / "usual").touch()
    (out / "private").touch(0o600)
    for name in ("new", "private"):
        with written_at_once(out / name) as partial:
            partial.write_text("x")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()}
    assert modes == {"usual": modes["usual"], "new": modes["usual"], "private": 0o600}


def test_a_link_stays_one(out):
    (out / "there").mkdir()
    (out / "link").symlink_to(out / "there" / "file")
    with written_at_once(out / "link") as partial:
        partial.write_text("x")
    assert (out / "link").is_symlink()
    assert (out / "there" / "file").read_text() == "x"


def test_a_pipe_is_written_to(out):
    os.mkfifo(out / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((out / "pipe").read_text()))
    reader.start()
    with written_at_once(out / "pipe") as partial:
        partial.write_text("x")
    reader.join()
    assert read == ["x"]
    assert stat.S_ISFIFO((out / "pipe").stat().st_mode)
