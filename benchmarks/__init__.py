"""Every figure of the documentation: what measures it, and what writes it down.

Run from a checkout: ``python -m benchmarks`` lists the commands. Nothing of this is
installed with curvdetect.
"""
