import re
import runpy
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore:mean AUROC")  # what the guard will miss
def test_the_examples_run_in_order():
    names = {}
    for block in BLOCKS:
        exec(block, names)
    assert 0 <= names["flagged"].mean() <= 0.2
    assert names["accuracy"] > 0.7
    assert (names["decided"] == names["y"][200:300]).mean() > 0.8
    assert 0.8 < names["guarded"].self_test_.mean_auroc <= 1
    assert names["found"].logits.shape == (8, 10)


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)(.*?)(?:#.*?)?\)", README)
    assert len(links) > 10
    for path in links:
        assert (Path(__file__).parents[1] / path).exists(), path


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
