"""The pictures of a page in Markdown, numbered, with their captions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from curvdetect.report.sections.base import Section

__all__ = ["as_markdown"]

_WIDTH = 88


def as_markdown(beside: Mapping[int, Section], below: Mapping[int, Section]) -> str:
    """Return the pictures figure{k}.png with their captions.

    Parameters
    ----------
    beside : mapping of int to Section
        Small ones, which have the caption on their right, by their numbers.
    below : mapping of int to Section
        Wide ones, which follow their captions.

    Returns
    -------
    str
        Markdown.
    """
    small = [f"| ![](figure{k}.png) | {_caption(k, s)} |" for k, s in beside.items()]
    wide = [
        f"{textwrap.fill(_caption(k, s), _WIDTH)}\n\n![](figure{k}.png)"
        for k, s in below.items()
    ]
    return "\n\n".join(["\n".join(["| | |", "| --- | --- |", *small]), *wide])


def _caption(number: int, section: Section) -> str:
    return f"Figure {number}: {section.CAPTION}"
