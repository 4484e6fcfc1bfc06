"""The networks of the benchmark: one file each, of which `NETWORK` is read.

To add one, write a file like the others: its name is the network's.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from benchmarks.evidence.case import Network

__all__ = ["names", "network"]


def names() -> list[str]:
    """Return the names of all networks."""
    return sorted(m.name for m in iter_modules(__path__) if m.name[0] != "_")


def network(name: str) -> Network:
    """Return one of them."""
    found: Network = import_module(f"{__name__}.{name}").NETWORK
    return found
