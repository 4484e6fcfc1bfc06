"""The pages of the benchmarks are those of the committed results."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def run(script, argv, monkeypatch):
    path = ROOT / "benchmarks" / script
    monkeypatch.setattr(sys, "argv", [script, *map(str, argv)])
    monkeypatch.syspath_prepend(str(path.parent))
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize(
    ("script", "page", "pictures"),
    [
        ("detection/report.py", "detection.md", ["--pictures", ""]),
        ("adaptive_report.py", "adaptive.md", ["--picture", "adaptive.png"]),
        ("cost_report.py", "cost.md", []),
        ("clamping_report.py", "bounds.md", []),
        ("learned_report.py", "learned.md", ["--picture", "learned_cost.png"]),
        ("companion_report.py", "companion.md", ["--picture", "certified.png"]),
        ("detection/imagenet_report.py", "imagenet.md", ["--picture", "imagenet.png"]),
    ],
)
def test_page(script, page, pictures, tmp_path, monkeypatch):
    argv = ["--results", RESULTS, "--out", tmp_path / page]
    argv += [pictures[0], tmp_path / pictures[1]] if pictures else []
    run(script, argv, monkeypatch)
    made = (tmp_path / page).read_text()
    assert made == (ROOT / "docs" / page).read_text()
    for name in re.findall(r"!\[.*?\]\(images/(.*?)\)", made):
        assert (tmp_path / name).exists()
        assert (ROOT / "docs" / "images" / name).exists()


def test_the_readmes_table_of_the_learned_guard_is_that_of_its_results():
    script = runpy.run_path(str(ROOT / "benchmarks" / "learned_report.py"))
    known = json.loads((RESULTS / "learned.json").read_text())
    assert script["short_table"](known) in (ROOT / "README.md").read_text()


def test_the_readmes_table_of_photographs_is_that_of_its_results():
    report = ROOT / "benchmarks" / "detection" / "imagenet_report.py"
    known = json.loads((RESULTS / "imagenet.json").read_text())
    table = runpy.run_path(str(report))["short_table"](known)
    assert table in (ROOT / "README.md").read_text()


def test_the_readmes_table_of_evasion_is_that_of_its_results():
    script = runpy.run_path(str(ROOT / "benchmarks" / "companion_report.py"))
    known, without = (
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("companion_adaptive", "learned_adaptive")
    )
    table = script["evasion_table"](known, without)
    assert table in (ROOT / "README.md").read_text()


def test_the_readmes_table_of_cost_is_that_of_the_page():
    readme = (ROOT / "README.md").read_text()
    page = (ROOT / "docs" / "cost.md").read_text()
    table = page[page.index("| network | way |") :].partition("\n\n")[0]
    assert table.strip() in readme
