"""Sections of the page about a guard, one module each, with a template of its name.

A module has a ``TITLE`` and ``build(facts)``, which returns what its template is given.
What there is nothing to say about is left out there, and the template says why. Charts
are drawn by what draws them in other reports, :mod:`curvdetect.report.sections`, and by
:mod:`curvdetect.plotting`.
"""
