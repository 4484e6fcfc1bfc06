"""The command line, ``curvdetect``: one module a command, and what they share.

A command is a module with a function ``add_to(commands)``, which declares it, and what
it runs; the list in ``_parser.py`` names it. The modules import what is slow to import
when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence

from curvdetect._base.messages import one_line
from curvdetect.cli._parser import make_parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, 1 after an error (in one line on standard error), 2 for wrong
        usage, 130 after Ctrl-C.
    """
    options = vars(make_parser().parse_args(argv))
    del options["command"]
    run, debug = options.pop("run"), options.pop("debug")
    try:
        with _warnings_in_one_line():
            run(**options)
    except KeyboardInterrupt:
        print("curvdetect: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if debug:
            raise
        print(f"curvdetect: error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Say our warnings as errors are said: they point at the script that calls us."""
    usual = warnings.formatwarning

    def said(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if filename != sys.argv[0]:  # of others
            return usual(message, category, filename, lineno, line)
        return f"curvdetect: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = said
    try:
        yield
    finally:
        warnings.formatwarning = usual
