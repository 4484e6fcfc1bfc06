"""Standard output for results alone: what other code prints goes to standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

from curvdetect._base.files import writing

__all__ = ["results_alone"]


@contextlib.contextmanager
def results_alone() -> Iterator[IO[str]]:
    """Give standard output to write results to, and nobody else.

    Yields
    ------
    text file
        Standard output. Whatever is printed meanwhile, by Python, by compiled code or
        by a program that is started, goes to standard error.
    """
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(_moved(sys.stdout, sys.stderr))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield results


@contextlib.contextmanager
def _moved(stdout: IO[str], stderr: IO[str]) -> Iterator[IO[str]]:
    """Give a stream to where `stdout` led, and let that lead to `stderr` meanwhile."""
    try:
        number, elsewhere = stdout.fileno(), stderr.fileno()
    except (AttributeError, OSError, ValueError):  # a notebook's, or a test's
        yield stdout
        return
    kept = os.dup(number)
    os.dup2(elsewhere, number)
    results = open(  # noqa: SIM115, for closing has errors of its own
        kept,
        "w",
        encoding=getattr(stdout, "encoding", None),
        errors=getattr(stdout, "errors", None),
        newline="",
        closefd=False,
    )
    try:
        try:
            yield results
        finally:
            with writing("standard output"):  # what is still in its buffer
                results.close()
    finally:
        stdout.flush()
        os.dup2(kept, number)
        os.close(kept)
