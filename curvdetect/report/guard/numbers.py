"""How numbers are written on the page: rounded, but never to what they are not."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["between", "figure", "share"]

_DIGITS = 3


def share(value: float) -> str:
    """Return a share, or an AUROC, with three decimals.

    Parameters
    ----------
    value : float
        From 0 to 1; NaN is not known.

    Returns
    -------
    str
        What is only nearly 0 or 1 is not written as that.

    Examples
    --------
    >>> from curvdetect.report.guard.numbers import share
    >>> share(0.0512), share(0.99996), share(1.0), share(float("nan"))
    ('0.051', '> 0.999', '1.000', 'not known')
    """
    if math.isnan(value):
        return "not known"
    least = 10**-_DIGITS
    if 0 < value < least / 2:
        return f"< {least:g}"
    if 1 - least / 2 < value < 1:
        return f"> {1 - least:g}"
    return f"{value:.{_DIGITS}f}"


def between(estimate: Sequence[float]) -> str:
    """Return a share with its interval.

    Parameters
    ----------
    estimate : (float, float, float)
        Value and ends, such as an :class:`~curvdetect.study.metrics.Estimate`.

    Returns
    -------
    str
        The value alone where there is no interval.

    Examples
    --------
    >>> from curvdetect.report.guard.numbers import between
    >>> between((0.25, 0.1, 0.5))
    '0.250 (0.100 to 0.500)'
    """
    value, low, high = estimate
    if math.isnan(low) or math.isnan(high):
        return share(value)
    return f"{share(value)} ({share(low)} to {share(high)})"


def figure(value: float) -> str:
    """Return a length, a cost or a score with three significant digits.

    Examples
    --------
    >>> from curvdetect.report.guard.numbers import figure
    >>> figure(0.025098), figure(12345.6), figure(float("inf"))
    ('0.0251', '12,346', 'not found')
    """
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "not found"
    if abs(value) >= 10**_DIGITS - 0.5:  # three digits of it would be 1e+03
        return f"{value:,.0f}"
    return f"{value:.{_DIGITS}g}"
