"""Tables in Markdown, and figures in their cells."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["interval", "paragraph", "table"]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown, which ends with its last row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def interval(figure: Sequence[float], digits: int = 3) -> str:
    """Return "0.950 (0.940-0.963)", with "to" where a dash would read as a sign."""
    value, low, high = (f"{number:.{digits}f}" for number in figure)
    between = " to " if figure[1] < 0 else "-"
    return f"{value} ({low}{between}{high})"


def paragraph(text: str) -> str:
    """Return a text in lines of at most 100 characters.

    A figure stays with its unit, and code in one line.
    """
    text = " ".join(text.split())
    joined = re.sub(r" %|`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.fill(joined, 100, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")
