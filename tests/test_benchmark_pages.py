"""Every figure is that of the results, and every command is there to rerun."""

import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import benchmarks
from benchmarks import __main__ as commands
from benchmarks import catalogue, catalogue_report, report
from benchmarks.common.results import RESULTS, read, rounded, significant, write
from curvdetect.cli._parser import make_parser

ROOT = Path(__file__).parents[1]
MODULES = [
    module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
]
LINES = [line for each in catalogue.MEASUREMENTS for line in each.lines()]


def imported(name):
    """Import a module of the benchmarks; skip where it needs what is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] in ("benchmarks", "curvdetect"):
            raise
        pytest.skip(f"{error.name} is not installed")


def parser_of(command):
    module, _ = commands.COMMANDS[command]
    return imported(f"benchmarks.{module}").parser()


# Pages ----------------------------------------------------------------------------


def test_pages_and_blocks_are_those_of_the_committed_results():
    stale = [str(path.relative_to(ROOT)) for path in report.changed()]
    assert stale == []  # `python -m benchmarks report` writes them


def test_every_block_is_shown():
    shown = set()
    for pattern in report.BY_HAND:
        for path in ROOT.glob(pattern):
            shown |= {name for _, name, _, _ in report.MARK.findall(path.read_text())}
    assert shown == set(report.BLOCKS)


def test_a_block_that_nobody_makes_is_refused():
    with pytest.raises(ValueError, match="a block 'guesses'; there are detectors, "):
        report.filled("<!-- benchmarks: guesses -->3<!-- end -->", Path("page.md"))


def test_a_block_is_put_where_its_marks_are():
    inline = report.filled(
        "some <!-- benchmarks: learned, passes -->99<!-- end --> passes", Path("p.md")
    )
    costs = [found["cost_clean"] for found in read("learned").values()]
    number = f"{min(costs):.0f} to {max(costs):.0f}"
    mark = f"<!-- benchmarks: learned, passes -->{number}<!-- end -->"
    assert inline == f"some {mark} passes"


def test_check_names_what_differs_and_writes_nothing(monkeypatch, capsys):
    page = ROOT / "docs" / "cost.md"
    before = page.read_text()
    monkeypatch.setitem(report.PAGES, "cost", lambda: "# Nothing\n")
    assert report.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/cost.md differs\n"
    assert page.read_text() == before


def test_pictures_are_drawn_and_committed():
    drawn = {name for pictures in report.PICTURES for name in pictures()}
    committed = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert drawn <= committed
    for page in report.PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text()
        assert set(re.findall(r"!\[[^\]]*\]\(images/(.*?)\)", text)) <= drawn


# Commands -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    imported(name)


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_every_command_says_what_it_measures(command, capsys):
    parser_of(command)
    with pytest.raises(SystemExit) as left:
        commands.main([command, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m benchmarks {command} ")
    assert f"    python -m benchmarks {command}" in shown  # how it is run


def test_the_commands_are_listed(capsys):
    for arguments in ([], ["--help"]):
        assert commands.main(arguments) == 0
        shown = capsys.readouterr().out
        for name, (_, what) in commands.COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(what)}$", shown, re.MULTILINE)


def test_an_unknown_command_is_told_which_there_are(capsys):
    assert commands.main(["detect"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("there is no command 'detect'; there are detection, learned")


@pytest.mark.parametrize("line", LINES)
def test_every_documented_command_parses(line):
    words = shlex.split(line)
    if words[0] == "curvdetect":
        make_parser().parse_args(words[1:])
    else:
        assert words[:3] == ["python", "-m", "benchmarks"]
        parser_of(words[3]).parse_args(words[4:])


def test_commands_are_the_same_where_they_are_broken_into_lines():
    text = catalogue_report.commands()
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    typed = "".join(blocks).replace("\\\n", "").splitlines()
    assert {*map(tuple, map(shlex.split, typed))} == {
        *map(tuple, map(shlex.split, LINES))
    }
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 88


def test_nothing_names_a_module_that_is_not_there():
    texts = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("benchmarks/**/*.py"),
        *ROOT.glob("curvdetect/**/*.py"),
    ]
    named = {
        name
        for path in texts
        for name in re.findall(r"benchmarks/[\w/]+\.py\b", path.read_text())
    }
    assert "benchmarks/report.py" in named
    assert [name for name in named if not (ROOT / name).exists()] == []


# Results --------------------------------------------------------------------------


def test_every_file_of_results_is_that_of_a_measurement():
    named = {path for each in catalogue.MEASUREMENTS for path in each.files()}
    assert all(path.exists() for path in named)
    assert {path for path in RESULTS.rglob("*") if path.is_file()} <= named


def test_results_are_written_with_lists_of_numbers_in_lines(tmp_path):
    path = tmp_path / "results.json"
    write(path, {"auroc": [0.5, 0.25], "said": ["a  b", "[1,\n2]"], "none": []})
    assert path.read_text() == (
        '{\n "auroc": [0.5, 0.25],\n "said": [\n  "a  b",\n  "[1,\\n2]"\n ],\n'
        ' "none": []\n}\n'
    )


def test_numbers_are_rounded_wherever_they_are():
    found = {"a": (0.123456, 2), "b": [{"c": 1234.5678}], "d": "0.123456"}
    assert rounded(found) == {**found, "a": [0.1235, 2]}
    assert significant(found) == {**found, "a": [0.1235, 2], "b": [{"c": 1235.0}]}
    assert significant([float("inf"), float("nan")]) == [None, None]
