"""The command line and code of one's own: where it prints, computes and fails."""

import csv
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from curvdetect import cli
from curvdetect.cli._streams import results_alone
from curvdetect.cli.fit import run_fit
from curvdetect.study.networks import LeNet

LENET = "curvdetect.study.networks:LeNet"


@pytest.fixture
def pictures(tmp_path, images):
    np.save(tmp_path / "x.npy", images[0][:12])
    return str(tmp_path / "x.npy")


@pytest.fixture
def guard(tmp_path, pictures):
    argv = ["fit", "--model", LENET, "--input-shape", "1,28,28", "--images", pictures]
    argv += ["--target-fpr", "0.1", "--n-boundaries", "1", "--detector", "threshold"]
    assert cli.main([*argv, "--out", str(tmp_path / "guard")]) == 0
    return str(tmp_path / "guard")


TALKATIVE = """
import os, subprocess, sys
from curvdetect.study.networks import LeNet

print("imported")
sys.__stdout__.write("to the stream itself\\n")

class Talks(LeNet):
    def forward(self, x):
        print("called")
        return super().forward(x)

def make():
    print("made")
    os.write(1, b"to the descriptor\\n")
    subprocess.run(["echo", "by a program"])
    return Talks()
"""


def test_what_a_network_prints_is_no_part_of_the_table(guard, pictures, tmp_path):
    (tmp_path / "talks.py").write_text(TALKATIVE)
    argv = ["score", "--model", "talks:make", "--guard", guard, "--images", pictures]
    run = subprocess.run(
        [sys.executable, "-m", "curvdetect", *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    assert [row["image"] for row in rows] == [str(i) for i in range(12)]
    assert run.stdout.count("\n") == 13
    for said in ("imported", "to the stream itself", "made", "called"):
        assert f"{said}\n" in run.stderr
    for said in ("to the descriptor", "by a program"):
        assert f"{said}\n" in run.stderr


def prints():
    print("made")
    return LeNet()


@pytest.mark.parametrize("command", ["score", "report", "curvature-profile", "fit"])
def test_what_a_function_prints_goes_to_stderr(
    command, guard, pictures, tmp_path, capsys
):
    argv = [command, "--model", "test_own_code:prints", "--images", pictures]
    if command == "score":
        argv += ["--guard", guard]
    elif command == "report":
        argv += [guard, "--n-attacked", "0", "--out", str(tmp_path / "out")]
    else:
        argv += ["--input-shape", "1,28,28", "--out", str(tmp_path / "out")]
        argv += ["--n-boundaries", "1"]
        argv += {
            "fit": ["--target-fpr", "0.1", "--detector", "threshold"],
            "curvature-profile": ["--n-images", "1"],
        }[command]
    capsys.readouterr()
    assert cli.main(argv) == 0
    printed, said = capsys.readouterr()
    assert "made" in said
    assert "made" not in printed
    assert printed.lstrip().startswith("" if command in ("fit", "report") else "image")


def write_and_fail():
    with results_alone() as results:
        results.write("a result\n")
        print("printed")
        raise ValueError("wrong")


def test_standard_output_is_given_back_after_an_error(capsys):
    stdout = sys.stdout
    with pytest.raises(ValueError, match="wrong"):
        write_and_fail()
    assert sys.stdout is stdout
    print("after")
    assert capsys.readouterr() == ("a result\nafter\n", "printed\n")


# Where it computes ------------------------------------------------------


class Elsewhere(LeNet):
    """Says where it was put."""

    moved = ()

    def to(self, device):
        Elsewhere.moved = (*Elsewhere.moved, str(device))
        return super().to(device)


@pytest.mark.parametrize("command", ["score", "curvature-profile", "fit"])
@pytest.mark.parametrize("device", [None, "cpu"])
def test_the_network_is_put_where_the_help_says(
    command, device, guard, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(Elsewhere, "moved", ())
    argv = [command, "--model", "test_own_code:Elsewhere", "--images", pictures]
    argv += ["--device", device] if device else []
    if command == "score":
        argv += ["--guard", guard]
    else:
        argv += ["--input-shape", "1,28,28", "--out", str(tmp_path / "out")]
        argv += ["--n-boundaries", "1"]
        argv += {
            "fit": ["--target-fpr", "0.1", "--detector", "threshold"],
            "curvature-profile": [],
        }[command]
    assert cli.main(argv) == 0
    assert Elsewhere.moved == ("cpu",)


def test_a_guard_that_was_fitted_in_python_is_bound_to_no_device(pictures, tmp_path):
    guard = run_fit(
        LENET,
        pictures,
        out=tmp_path / "out",
        input_shape=(1, 28, 28),
        target_fpr=0.1,
        detector="threshold",
        n_boundaries=1,
    )
    assert guard.model.device is None


def without_values():
    return LeNet().to("meta")


def test_a_network_without_values_is_one_line(pictures, tmp_path, capsys):
    argv = ["fit", "--model", "test_own_code:without_values", "--images", pictures]
    argv += ["--input-shape", "1,28,28", "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "meta" in said[0]


@pytest.mark.parametrize(
    "command", ["fit", "score", "curvature-profile", "demo", "reproduce"]
)
def test_a_torch_without_cuda_is_one_line(
    command, guard, pictures, tmp_path, capsys, monkeypatch
):
    """Such a torch asserts, which is no error of any other kind."""
    zeros = torch.zeros

    def asserts(*args, device=None, **kwargs):
        if device == "cuda":
            raise AssertionError("Torch not compiled with CUDA enabled")
        return zeros(*args, device=device, **kwargs)

    monkeypatch.setattr(torch, "zeros", asserts)
    argv = [command, "--device", "cuda"]
    if command in ("demo", "reproduce"):
        argv += ["--out", str(tmp_path / "out")]
    else:
        argv += ["--model", LENET, "--images", pictures]
        argv += (
            ["--guard", guard]
            if command == "score"
            else ["--input-shape", "1,28,28", "--out", str(tmp_path / "out")]
        )
    capsys.readouterr()
    assert cli.main(argv) == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.splitlines() == [
        "curvdetect: error: device must be one that torch can use here, such as cpu; "
        "got 'cuda' (Torch not compiled with CUDA enabled)"
    ]
    assert not (tmp_path / "out").exists()


# What it says when it fails ---------------------------------------------


class Complains(nn.Module):
    def __init__(self):
        super().__init__()
        raise RuntimeError("one line\nand \x1b[1manother")


def test_an_error_is_one_line(pictures, tmp_path, capsys):
    argv = ["fit", "--model", "test_own_code:Complains", "--images", pictures]
    argv += ["--input-shape", "1,28,28", "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith("Complains raised RuntimeError: one line and another")


WARNS = """
import warnings
from torch import nn
from curvdetect.study.networks import LeNet

def make():
    warnings.warn("from elsewhere")
    return nn.Sequential(LeNet(), nn.Softmax(dim=1))
"""


def test_a_warning_is_one_line_that_points_at_no_script(pictures, tmp_path):
    """Ours; those of other code say where they come from."""
    (tmp_path / "warns.py").write_text(WARNS)
    argv = ["fit", "--model", "warns:make", "--images", pictures, "--out", "out"]
    argv += ["--input-shape", "1,28,28", "--detector", "threshold"]
    run = subprocess.run(
        [sys.executable, "-m", "curvdetect", *argv, "--target-fpr", "0.1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stderr.splitlines()
    ours = [line for line in lines if line.startswith("curvdetect: warning: ")]
    assert any("probabilities" in line for line in ours)
    assert any("warns.py:7: UserWarning: from elsewhere" in line for line in lines)
    assert "__main__.py" not in run.stderr


@pytest.mark.parametrize("missing", ["matplotlib", "torchattacks"])
@pytest.mark.parametrize("command", ["demo", "reproduce"])
def test_the_extra_that_is_named_brings_all(
    command, missing, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main([command, "--out", str(tmp_path / "out")]) == 1
    assert "pip install 'curvdetect[demo]'" in capsys.readouterr().err


def test_weights_are_chosen_on_the_command_line(pictures, tmp_path, capsys):
    torch.manual_seed(1)
    first, second = LeNet().state_dict(), LeNet().state_dict()
    torch.save({"state_dict": first, "state_dict_ema": second}, tmp_path / "w.pt")
    argv = ["fit", "--model", LENET, "--weights", str(tmp_path / "w.pt"), "--images"]
    argv += [pictures, "--input-shape", "1,28,28", "--target-fpr", "0.1"]
    argv += ["--detector", "threshold", "--n-boundaries", "1"]
    argv += ["--out", str(tmp_path / "out")]
    assert cli.main(argv) == 1
    assert "'state_dict', 'state_dict_ema': choose by" in capsys.readouterr().err
    assert cli.main([*argv, "--weights-key", "state_dict_ema"]) == 0
