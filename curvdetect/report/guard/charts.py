"""Charts as SVG within the page: its colours, its font, its dark mode."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any, NamedTuple

from curvdetect._base.extras import require
from curvdetect.plotting._axes import COLOURS

__all__ = ["Chart", "chart"]

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
#: What matplotlib writes of a font; the page has one.
_FONT = re.compile(r"font-family:[^;]*;?\s*")
#: Ids, and what refers to them.
_LOCAL = re.compile(r"url\(#")
#: matplotlib's colours, as what the style sheet calls them, in light and in dark.
_COLOURS = {
    "#000000": "currentColor",
    "#4d4d4d": "currentColor",  # "0.3"
    **{colour.lower(): f"var(--series-{k})" for k, colour in enumerate(COLOURS, 1)},
}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_SETTINGS = {
    "svg.fonttype": "none",  # text is text, in the font of the page
    "svg.hashsalt": "curvdetect",  # the same names every time
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class Chart(NamedTuple):
    """A chart for a template.

    Attributes
    ----------
    svg : Markup
        The element, which says what it shows to those who cannot see it.
    width : int
        In pixels, at which its text has the size of small print.
    """

    svg: Any
    width: int


def chart(
    draw: Callable[[Any], object], *, size: tuple[float, float], name: str, alt: str
) -> Chart:
    """Draw a chart, and make it an SVG element for the page.

    Parameters
    ----------
    draw : callable
        Is given matplotlib axes.
    size : (float, float)
        Width and height in inches. At most 4.4 wide, so that text can be read on a
        telephone.
    name : str
        Unique on the page: ids begin with it.
    alt : str
        What there is to see.

    Returns
    -------
    Chart
        Its colours are variables of the style sheet, its background is transparent.
    """
    matplotlib = require("matplotlib", extra="report")
    new_figure = require("matplotlib.figure", extra="report").Figure
    markup = require("markupsafe", extra="report").Markup
    written = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a style of the user's would have other colours
        matplotlib.rcParams.update(_SETTINGS)
        figure = new_figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    root = ET.fromstring(written.getvalue())
    _adapt(root, name)
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib |= {"role": "img", "aria-label": alt}
    for absolute in ("width", "height", "version"):
        root.attrib.pop(absolute)
    # Safe: ElementTree escapes what is in it.
    return Chart(markup(ET.tostring(root, encoding="unicode")), round(width * 4 / 3))


def _adapt(root: ET.Element, name: str) -> None:
    """Take off what belongs to a file of its own: name spaces, styles, colours, ids."""
    for parent in root.iter():
        for child in [child for child in parent if child.tag == f"{_SVG}style"]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if _LINK in element.attrib:
            target = element.attrib.pop(_LINK).removeprefix("#")
            element.set("href", f"#{name}-{target}")
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.attrib['id']}")
        if "clip-path" in element.attrib:
            clip = _LOCAL.sub(f"url(#{name}-", element.attrib["clip-path"])
            element.set("clip-path", clip)
        if "style" in element.attrib:
            style = _FONT.sub("", element.attrib["style"])
            element.set("style", _COLOUR.sub(_variable, style))


def _variable(colour: re.Match[str]) -> str:
    return _COLOURS.get(colour[0], colour[0])
