"""``curvdetect demo``: the main job on real images, from attack to table."""

from __future__ import annotations

import argparse
from typing import Any

from curvdetect.cli._options import add_command, add_experiment, check_device

__all__ = ["add_to"]


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = add_command(
        commands,
        "demo",
        _run,
        help="guard a trained network, attack it, and show what is detected",
        description=(
            "Fit a guard on half of the images, attack the other half with PGD, detect "
            "the adversarial images and recover their labels. Prints a table; writes "
            "pictures and results.json. Needs the extra demo."
        ),
    )
    parser.add_argument(
        "--dataset",
        choices=["fashion-mnist", "mnist", "digits", "cifar10"],
        default="fashion-mnist",
        help="fashion-mnist (default) and digits need no download",
    )
    parser.add_argument(
        "--detector",
        choices=["learned", "threshold"],
        default="learned",
        help="learned: from attacks on the network (default); threshold: on the "
        "largest curvature, with the pictures of the report",
    )
    add_experiment(parser, out="curvdetect-demo", n_images=800)
    return parser


def _run(**options: Any) -> None:
    from curvdetect.report.demo import run_demo

    check_device(options["device"])
    run_demo(**options)
