"""The command line: ``curvdetect demo`` and ``curvdetect reproduce``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curvdetect import __version__

__all__ = ["main"]

_EXAMPLES = """\
examples:
  curvdetect demo
  curvdetect demo --n-images 200 --out /tmp/demo
  curvdetect demo --dataset mnist --data-dir ~/data
  curvdetect reproduce --dataset mnist --data-dir ~/data
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
        _run(args)
    except KeyboardInterrupt:
        print("curvdetect: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if args.debug:
            raise
        print(f"curvdetect: error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    common: dict[str, Any] = {
        "out": args.out,
        "seed": args.seed,
        "n_images": args.n_images,
        "device": args.device,
        "data_dir": args.data_dir,
    }
    # Slow to import: not for --help.
    if args.command == "demo":
        from curvdetect.demo import run_demo

        run_demo(args.dataset, **common)
    else:
        from curvdetect.reproduce import run_reproduce

        run_reproduce(args.dataset, train_anew=args.train, **common)


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
    _add_common(demo, out="curvdetect-demo", n_images=800)
    reproduce = commands.add_parser(
        "reproduce",
        help="run the report's experiment, and the same with the defaults",
        description=(
            "Run the report's experiment on a LeNet: PGD, 25 natural and 25 perturbed "
            "pictures, the best threshold, over 1,000 draws. Prints a table, writes "
            "a page with Figures 2 to 6 and results.json. Some 5 minutes on 2 cores."
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reproduce.add_argument(
        "--dataset",
        choices=["fashion-mnist", "mnist"],
        default="fashion-mnist",
        help="fashion-mnist (default) needs no download",
    )
    reproduce.add_argument(
        "--train",
        action="store_true",
        help="train a LeNet instead of loading the one that is shipped",
    )
    _add_common(reproduce, out="curvdetect-reproduce", n_images=300)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, out: str, n_images: int) -> None:
    """Add the options that all experiments have."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help="folder for pictures and results.json (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--n-images",
        type=int,
        default=n_images,
        help="test images to start from (default: %(default)s)",
    )
    parser.add_argument(
        "--device", help="torch device, such as cuda (default: where the network is)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder of data sets in torchvision's layout "
        "(default: $CURVDETECT_DATA, else ~/.cache/curvdetect)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )
