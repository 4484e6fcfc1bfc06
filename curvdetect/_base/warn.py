"""Warnings that point at the user's line, however deep the call."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

#: Who calls this package on behalf of the user: pipelines and searches, caches and
#: workers, modules and decorators, other toolkits and their base classes.
_BETWEEN = frozenset(
    {
        "curvdetect",
        "abc",
        "art",
        "contextlib",
        "dask",
        "distributed",
        "functools",
        "joblib",
        "pytorch_ood",
        "sklearn",
        "torch",
        "torchattacks",
    }
)


def warn(message: str) -> None:
    """Warn, at the first line outside of this package and of what calls it for others.

    A fixed ``stacklevel`` is right for one way to call a function: not for the same
    call inside a pipeline, or through a method of this package that came later.

    Parameters
    ----------
    message : str
        What is wrong, and what to do next.

    Warns
    -----
    UserWarning
        Always, with file and line of whoever called; the outermost line if all of them
        are ours, as on the command line.
    """
    # "skip_file_prefixes" of warnings.warn came with Python 3.12.
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_between(frame.f_globals):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_between(names: dict[str, object]) -> bool:
    return str(names.get("__name__")).partition(".")[0] in _BETWEEN
