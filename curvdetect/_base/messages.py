"""What an error says, in one line."""

from __future__ import annotations

import re

__all__ = ["one_line"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def one_line(error: BaseException) -> str:
    """Return all that an error says in one line, without colours for a terminal."""
    return " ".join(_COLOURS.sub("", str(error) or repr(error)).split())
