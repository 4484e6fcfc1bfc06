"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.networks import NETWORKS
from benchmarks.common.results import CACHE, RESULTS
from benchmarks.common.strangers import STRANGERS

__all__ = [
    "IMAGES",
    "add_cache",
    "add_companions",
    "add_data_dir",
    "add_guards",
    "add_networks",
    "add_out",
    "add_picture",
    "command_parser",
]

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def command_parser(command: str, doc: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command, which is described as its module is."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_cache(
    parser: argparse.ArgumentParser, name: str, what: str, option: str = "--cache"
) -> None:
    """Add a folder where `what` is kept, in `benchmarks/cache` by default."""
    parser.add_argument(
        option,
        type=Path,
        default=CACHE / name,
        metavar="FOLDER",
        help=f"{what}; benchmarks/cache/{name} by default",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add where data sets are."""
    parser.add_argument(
        "--data-dir", help="folder of the data sets; $CURVDETECT_DATA by default"
    )


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
    """Add where results go; a `name` with a {} depends on the other arguments."""
    parser.add_argument(
        "--out",
        type=Path,
        default=None if "{" in name else RESULTS / name,
        help=f"file of results; benchmarks/results/{name} by default",
    )


def add_picture(parser: argparse.ArgumentParser, name: str) -> None:
    """Add where a picture goes, likewise."""
    parser.add_argument("--picture", type=Path, help=f"docs/images/{name} by default")


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add networks of ours and of others, and where the files of others are."""
    names = [*NETWORKS, *STRANGERS]
    parser.add_argument(
        "networks", nargs="+", choices=names, metavar="NETWORK", help=", ".join(names)
    )
    parser.add_argument(
        "--strangers", metavar="FOLDER", help="of the ONNX files of networks of others"
    )


def add_companions(parser: argparse.ArgumentParser) -> None:
    """Add the companions that `companions` trained."""
    parser.add_argument(
        "--companions",
        type=Path,
        nargs="?",
        const=CACHE / "companions",
        metavar="FOLDER",
        help="with the companions in it; benchmarks/cache/companions without a name",
    )


def add_guards(parser: argparse.ArgumentParser, *, n_images: int) -> None:
    """Add the networks whose learned guards are attacked, and on how many images."""
    add_networks(parser)
    add_data_dir(parser)
    add_companions(parser)
    parser.add_argument("--n-images", type=int, default=n_images)
