"""The parser of the command line, from the parsers of the commands."""

from __future__ import annotations

import argparse

from curvdetect import __version__
from curvdetect.cli import (
    companion,
    curvature_profile,
    demo,
    evade,
    export,
    fit,
    monitor,
    report,
    reproduce,
    score,
    serve,
)
from curvdetect.cli._options import EXAMPLES

__all__ = ["make_parser"]

#: In the order of the help.
_COMMANDS = (
    demo,
    reproduce,
    companion,
    fit,
    score,
    evade,
    report,
    monitor,
    serve,
    export,
    curvature_profile,
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser: what it parses names the function to run, and its options."""
    parser = argparse.ArgumentParser(
        prog="curvdetect",
        description="Guard an image classifier: flag adversarial images, and recover "
        "the labels that they had.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in _COMMANDS:
        command.add_to(commands).add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
    return parser
