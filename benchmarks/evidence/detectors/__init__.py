"""The detectors that are compared: ours first, then those of others, a family a file.

To add some, write a file whose `DETECTORS` is a tuple of `Detector`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.evidence.detectors.base import Detector

__all__ = ["all_detectors"]


def all_detectors() -> list[Detector]:
    """Return every detector whose packages are installed, ours first."""
    found: list[Detector] = []
    names = [m.name for m in iter_modules(__path__)]
    modules = [name for name in names if name != "base" and name[0] != "_"]
    for name in sorted(modules, key=lambda name: (name != "ours", name)):
        found += import_module(f"{__name__}.{name}").DETECTORS
    return found
