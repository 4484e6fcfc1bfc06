"""Sections of reports, one module each.

A picture is a module with what `Section` in :mod:`curvdetect.report.sections.base`
lists: its size, its caption, and ``draw(ax, measured)``; any experiment can use it.
`before_and_after` fills a whole figure; `figures_table` and `numbered_pictures` are
text.
"""
