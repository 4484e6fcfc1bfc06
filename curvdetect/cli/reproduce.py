"""``curvdetect reproduce``: the report's experiment, and the same with our defaults."""

from __future__ import annotations

import argparse
from typing import Any

from curvdetect.cli._options import add_command, add_experiment, check_device

__all__ = ["add_to"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "reproduce",
        _run,
        help="repeat the experiment of the report that the method comes from",
        description=(
            "Repeat the experiment of the report that the method comes from, on a "
            "LeNet, with its method and with our defaults: PGD, 25 clean and 25 "
            "adversarial images, the best threshold, over 1,000 draws. Prints a table; "
            "writes a page with the report's Figures 2 to 6, and results.json. Takes "
            "some 5 minutes on 2 cores. Needs the extra demo."
        ),
    )
    parser.add_argument(
        "--dataset",
        choices=["fashion-mnist", "mnist"],
        default="fashion-mnist",
        help="fashion-mnist (default) needs no download",
    )
    parser.add_argument(
        "--train",
        action="store_true",
        dest="train_anew",
        help="train a LeNet instead of loading the bundled one",
    )
    add_experiment(parser, out="curvdetect-reproduce", n_images=300)
    return parser


def _run(**options: Any) -> None:
    from curvdetect.report.reproduce import run_reproduce

    check_device(options["device"])
    run_reproduce(**options)
