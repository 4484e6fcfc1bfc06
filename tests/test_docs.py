"""The examples in the pages of the documentation run, and give what they say."""

import doctest
import re
from pathlib import Path

import pytest

import curvdetect

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts and "```pycon" in path.read_text()
]


#: What shows that a page needs a library that not everybody has.
NEEDED = {
    "from_timm(": "timm",
    "import ViTConfig": "transformers",
    "curvdetect.serving import": "prometheus_client",
}


@pytest.mark.filterwarnings("ignore:mean AUROC")  # what a guard will miss
@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_page(path):
    for text, library in NEEDED.items():
        if text in path.read_text():
            pytest.importorskip(library)
    # All else becomes empty lines, so that failures name the line of the page.
    parts = re.split(r"(?<=```pycon\n)(.*?)(?=```)", path.read_text(), flags=re.DOTALL)
    parts[::2] = ["\n" * text.count("\n") for text in parts[::2]]
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    test = doctest.DocTestParser().get_doctest(
        "".join(parts), {}, path.stem, str(path), 0
    )
    assert test.examples
    report = []
    doctest.DocTestRunner(optionflags=flags).run(test, out=report.append)
    assert not report, "".join(report)


def test_every_page_of_the_guide_is_tested():
    guide = set((DOCS / "guide").glob("*.md")) - {DOCS / "guide" / "index.md"}
    assert guide <= set(PAGES)


def test_every_public_folder_is_in_the_reference():
    """A folder shows what its root exports; those without exports, their modules."""
    package = Path(curvdetect.__file__).parent
    listed = re.findall(
        r"^   curvdetect\.(\S*)$", (DOCS / "api/index.md").read_text(), re.M
    )
    folders = {
        path.parent.name
        for path in package.glob("*/__init__.py")
        if not path.parent.name.startswith("_")
    }
    folders -= {"estimators"}  # what curvdetect itself exports
    folders -= {"cli", "report"}  # behind the command line: of some of them, a module
    for folder in sorted(folders):
        if "__all__" in (package / folder / "__init__.py").read_text():
            assert folder in listed
            continue
        inner = {path.stem for path in (package / folder).glob("[!_]*")}
        assert {f"{folder}.{name}" for name in inner - {"__pycache__"}} <= set(listed)
