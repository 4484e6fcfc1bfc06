"""The command line: ``curvdetect demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from curvdetect import __version__

__all__ = ["main"]

_EXAMPLES = """\
examples:
  curvdetect demo
  curvdetect demo --n-images 200 --out /tmp/demo
  curvdetect demo --dataset mnist --data-dir ~/data
"""


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
    args = _parser().parse_args(argv)
    try:
        from curvdetect.demo import run_demo  # slow to import: not for --help

        run_demo(
            args.dataset,
            out=args.out,
            seed=args.seed,
            n_images=args.n_images,
            device=args.device,
            data_dir=args.data_dir,
        )
    except KeyboardInterrupt:
        print("curvdetect: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if args.debug:
            raise
        print(f"curvdetect: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="curvdetect",
        description="Detect adversarial images by the curvature of decision "
        "boundaries.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="attack a trained network, detect and relabel the images",
        description=(
            "Attack a trained network with PGD; detect the adversarial images and "
            "recover their labels. Prints a table, writes pictures and results.json."
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--dataset",
        choices=["fashion-mnist", "mnist", "digits", "cifar10"],
        default="fashion-mnist",
        help="fashion-mnist (default) and digits need no download",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("curvdetect-demo"),
        help="folder for pictures and results.json (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    demo.add_argument(
        "--n-images",
        type=int,
        default=800,
        help="images to start from, half of them to calibrate (default: %(default)s)",
    )
    demo.add_argument(
        "--device", help="torch device, such as cuda (default: where the network is)"
    )
    demo.add_argument(
        "--data-dir",
        type=Path,
        help="folder of data sets in torchvision's layout "
        "(default: $CURVDETECT_DATA, else ~/.cache/curvdetect)",
    )
    demo.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
    return parser
