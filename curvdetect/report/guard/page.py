"""Put the sections of a page together, and write it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from curvdetect import __version__
from curvdetect._base.extras import require
from curvdetect._base.files import written_at_once
from curvdetect.report.guard.facts import Facts
from curvdetect.report.guard.numbers import between, figure, share
from curvdetect.report.guard.sections import (
    calibration,
    certificate,
    cost,
    evasion,
    false_positives,
    frameworks,
    images,
    limits,
    made,
    network,
    purpose,
    self_test,
    summary,
    unseen,
)

__all__ = ["NAME", "SECTIONS", "PageSection", "page", "write_page"]

#: Of the file.
NAME = "report.html"


class PageSection(Protocol):
    """A part of the page: a module with these names, and a template of its name.

    Attributes
    ----------
    TITLE : str
        Its heading.
    """

    TITLE: str

    def build(self, facts: Facts) -> dict[str, Any]:
        """Return what the template is given."""


#: In the order of the page.
SECTIONS: tuple[PageSection, ...] = (
    summary,
    purpose,
    network,
    calibration,
    self_test,
    unseen,
    cost,
    certificate,
    evasion,
    false_positives,
    images,
    frameworks,
    limits,
    made,
)


def page(facts: Facts) -> str:
    """Return the page.

    Parameters
    ----------
    facts : Facts
        What was measured.

    Returns
    -------
    str
        HTML that needs nothing from outside.
    """
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("curvdetect.report.guard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"share": share, "between": between, "figure": figure}
    parts = []
    for section in SECTIONS:
        name = cast(ModuleType, section).__name__.rpartition(".")[2]
        template = environment.get_template(f"{name}.html.jinja")
        parts.append(
            {
                "id": name.replace("_", "-"),
                "title": section.TITLE,
                # Markup, since it escaped what it was given.
                "body": environment.filters["safe"](
                    template.render(section.build(facts))
                ),
            }
        )
    written: str = environment.get_template("page.html.jinja").render(
        sections=parts,
        origin=facts.origin,
        version=__version__,
        network=type(facts.model.module).__name__,
    )
    return written


def write_page(facts: Facts, folder: Path) -> Path:
    """Write the page to a folder, all of it or nothing.

    Parameters
    ----------
    facts : Facts
        What was measured.
    folder : Path
        Where to; it must be there.

    Returns
    -------
    Path
        The file.
    """
    path = folder / NAME
    text = page(facts)
    with written_at_once(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
