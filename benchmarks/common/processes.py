"""Time and memory, and processes of their own to measure them in."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["peak_mib", "run_alone", "timed"]


def run_alone(*arguments: str) -> str:
    """Run another command of the benchmarks, and return the last line it prints."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return out.stdout.splitlines()[-1]


def peak_mib() -> float:
    """Return the largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def timed(work: Callable[..., Any], *inputs: Any) -> tuple[float, Any]:
    """Return the seconds that some work took, and what came of it."""
    started = time.perf_counter()
    result = work(*inputs)
    return time.perf_counter() - started, result
