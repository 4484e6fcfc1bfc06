"""Experiments that end in a page or a folder of pictures, one module each.

What a page or a picture is put together from is in :mod:`curvdetect.report.sections`.
"""
