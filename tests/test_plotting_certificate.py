"""Shares of images, drawn: those that are larger, of all."""

import numpy as np
import pytest

from curvdetect.plotting import CertificateDisplay


def at(line, x):
    """Return where a step function is."""
    steps, values = line.get_xdata(), line.get_ydata()
    return values[np.searchsorted(steps, x, side="right") - 1]


def test_shares_are_those_of_all_images():
    radius = [0.0, 0.0, 0.2, 0.4]
    norms = [0.1, np.inf, np.inf, np.inf]
    ax = CertificateDisplay(radius, norms).plot().ax_
    certified, fooled = ax.lines
    assert at(certified, 0) == 0.5
    assert at(certified, 0.3) == 0.25
    assert at(certified, 0.41) == 0
    assert at(fooled, 0.05) == 1
    assert at(fooled, 0.2) == pytest.approx(0.75)
    assert len(set(certified.get_xdata())) == len(certified.get_xdata())


def test_nothing_to_draw():
    (line,) = CertificateDisplay([]).plot().ax_.lines
    assert (line.get_ydata() == 0).all()
