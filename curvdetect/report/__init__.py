"""Experiments that end in a page or a folder of pictures, one module each.

The page about a fitted guard has a folder of its own, :mod:`curvdetect.report.guard`.

What a page or a picture is put together from is in :mod:`curvdetect.report.sections`.
"""
