"""What commands have in common that measure one network, and draw what they found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common.arguments import (
    IMAGES,
    add_data_dir,
    add_out,
    add_picture,
    command_parser,
)
from benchmarks.common.results import RESULTS, write

__all__ = ["keep", "pictured_parser"]


def pictured_parser(
    name: str, doc: str | None, networks: Iterable[str]
) -> argparse.ArgumentParser:
    """Return the parser of a command; `name` is that of its files, with underscores."""
    parser = command_parser(name.replace("_", "-"), doc)
    parser.add_argument("network", choices=networks)
    parser.add_argument("--weights", help="the shipped ones by default")
    add_data_dir(parser)
    add_out(parser, f"{name}-{{NETWORK}}.json")
    add_picture(parser, f"{name}-{{NETWORK}}.png")
    return parser


def keep(name: str, args: argparse.Namespace, results: Any, figure: Figure) -> None:
    """Write down and print the figures of a network, and save their picture."""
    write(args.out or RESULTS / f"{name}-{args.network}.json", results)
    figure.savefig(args.picture or IMAGES / f"{name}-{args.network}.png", dpi=110)
    print(json.dumps(results, indent=2))
