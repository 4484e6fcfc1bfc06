"""Every example runs, and prints what it promises."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.mark.filterwarnings("ignore")  # what the other packages say of themselves
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_example(path, capsys):
    if "art" in path.stem.split("_"):
        pytest.importorskip("art")
    if "ood" in path.stem:
        pytest.importorskip("pytorch_ood")
    if "service" in path.stem:  # asked in serving/test_other_hosts.py
        pytest.importorskip("python_multipart")
        pytest.importorskip("prometheus_client")
    if path.stem.startswith(("litserve", "mlflow")):  # and these
        pytest.importorskip(path.stem.partition("_")[0])
    runpy.run_path(str(path))
    printed = capsys.readouterr().out
    if path.stem == "art_detector":
        clean, adversarial = (int(n) for n in re.findall(r"(\d+)%", printed))
        assert clean <= 15
        assert adversarial >= 50
    if path.stem == "adaptive_attack":
        blind, adaptive = (int(n) for n in re.findall(r"flagged: (\d+)%", printed))
        assert blind >= 50
        assert adaptive <= 10
    if path.stem == "pytorch_ood_detector":
        areas = [float(n) for n in re.findall(r"AUROC (\S+)", printed)]
        energy, learned, curvature = areas
        assert learned > curvature > max(energy, 0.9)
