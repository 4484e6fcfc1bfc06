import re
import runpy
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_examples_run_in_order():
    names = {}
    for block in BLOCKS:
        exec(block, names)
    assert 0 <= names["flagged"].mean() <= 0.2
    assert names["accuracy"] > 0.7
    assert names["accuracy_guarded"] > 0.8
    assert names["smallest"].median() < 1
    assert names["along"].shape == (32, 8)
    assert names["stays"].float().mean() > 0.5
    assert float(names["kappa"]) == pytest.approx(0.5, abs=0.01)
    assert names["profile"].shape == (8, 783)
    assert names["leading"].flatten().tolist() == pytest.approx([1] * 5, rel=1e-3)


def test_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert len(pictures) == len(set(pictures))
    for path in pictures:
        assert (Path(__file__).parents[1] / path).exists()


def test_the_table_is_that_of_the_committed_results():
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    script = runpy.run_path(str(benchmarks / "main_job_table.py"))
    results = list((benchmarks / "results").glob("main_job-*.json"))
    assert results
    assert script["table"](results) in README
