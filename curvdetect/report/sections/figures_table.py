"""The table of figures with their intervals, as plain text or in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curvdetect.study.metrics import Estimate

__all__ = ["REPORT_ACCURACY", "REPORT_RELABELLING", "as_markdown", "as_text"]

#: The report's accuracy at the best threshold.
REPORT_ACCURACY = "0.75 to 0.85"
#: How often the report recovered the label.
REPORT_RELABELLING = "0.64"


def as_text(figures: Mapping[str, Estimate], notes: Mapping[str, str]) -> str:
    """Return a line for each figure, with its 95 % interval and a note.

    Parameters
    ----------
    figures : mapping of str to Estimate
        By their names.
    notes : mapping of str to str
        To some of them.

    Returns
    -------
    str
        For a terminal.
    """
    lines = [f"{'':32}{'value':>8}   {'95 % interval':<18}{'note'}"]
    for name, (value, low, high) in figures.items():
        interval = f"{low:.3f} to {high:.3f}"
        lines.append(f"{name:32}{value:8.3f}   {interval:<18}{notes.get(name, '')}")
    return "\n".join(lines)


def as_markdown(
    theirs: Mapping[str, str], ours: Mapping[str, Mapping[str, Sequence[float]]]
) -> str:
    """Return a line for each figure, with the report's and a column for each method.

    Parameters
    ----------
    theirs : mapping of str to str
        The report's, by their names.
    ours : mapping of str to mapping of str to (mean, low, high)
        By the title of the method, then as `theirs`.

    Returns
    -------
    str
        A table in Markdown.
    """
    columns = ["the report", *ours]
    lines = [f"| | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for name, reported in theirs.items():
        cells = [name, reported, *(_cell(figures[name]) for figures in ours.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(summary: Sequence[float]) -> str:
    mean, low, high = summary
    return f"{mean:.3f} ({low:.2f} to {high:.2f})"
