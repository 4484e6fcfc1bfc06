"""How a command is declared, and the options of all experiments."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curvdetect._base.messages import one_line

__all__ = [
    "EXAMPLES",
    "add_command",
    "add_device",
    "add_experiment",
    "add_seed",
    "check_device",
    "check_folder",
]

#: At the end of every help.
EXAMPLES = """\
examples:
  curvdetect demo
  curvdetect demo --n-images 200 --out /tmp/demo
  curvdetect demo --dataset mnist --data-dir ~/data
  curvdetect reproduce --dataset mnist --data-dir ~/data

a network of your own, made by a function make() without arguments in net.py:
  curvdetect fit --model net:make --weights w.pt --input-shape 3,32,32 \\
      --images calibration/ --target-fpr 0.01 --out guard.skops
  curvdetect score --model net:make --guard guard.skops --images new/ --out scores.csv
  curvdetect evade guard.skops --model net:make --images clean/ --out evasion.json
  curvdetect report guard.skops --model net:make --images clean/ \\
      --evasion evasion.json --out report
  curvdetect monitor guard.skops --model net:make --images others/ --out monitor.skops
  curvdetect serve guard.skops --model net:make --monitor monitor.skops --port 8000
  curvdetect export guard.skops --model net:make --out guard.pt2
  curvdetect companion --model net:make --weights w.pt --input-shape 3,32,32 \\
      --images training/ --out companion.pt
  curvdetect fit --model net:make --weights w.pt --input-shape 3,32,32 \\
      --companion net:make --companion-weights companion.pt \\
      --images calibration/ --out guard.skops
  curvdetect curvature-profile --model net:make --weights w.pt --input-shape 3,32,32 \\
      --images new/ --out curvatures

a network from a library (timm, torchvision, transformers), or an ONNX file:
  curvdetect fit --preset timm:resnet50 --images calibration/ --out guard.skops
  curvdetect score --preset timm:resnet50 --guard guard.skops --images photos/ \\
      --out scores.csv
"""


def add_command(
    commands: Any, name: str, run: Callable[..., object], *, help: str, description: str
) -> argparse.ArgumentParser:
    """Add a command; `run` gets its options, by their names."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=textwrap.fill(description, 80),  # the examples keep their lines
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the seed of what is random."""
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed (default: %(default)s)"
    )


def add_device(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add the device; `default` says which it is where none is given."""
    parser.add_argument(
        "--device", help=f"torch device, such as cuda (default: {default})"
    )


def check_folder(out: str | Path) -> None:
    """Refuse a file in a folder that is not there, before long work."""
    if not Path(out).absolute().parent.is_dir():
        raise ValueError(f"out: there is no folder {Path(out).parent}")


def check_device(device: str | None) -> None:
    """Refuse a device that this torch cannot compute on, before long work."""
    if device is None:
        return
    import torch

    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # torch without CUDA asserts; others raise as they like
        raise ValueError(
            f"device must be one that torch can use here, such as cpu; got {device!r} "
            f"({one_line(error)})"
        ) from error


def add_experiment(parser: argparse.ArgumentParser, *, out: str, n_images: int) -> None:
    """Add the options that all experiments have."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help="folder for pictures and results.json (default: %(default)s)",
    )
    add_seed(parser)
    parser.add_argument(
        "--n-images",
        type=int,
        default=n_images,
        help="number of images to use (default: %(default)s)",
    )
    add_device(parser, default="that of the network")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder with data sets in torchvision's layout "
        "(default: $CURVDETECT_DATA, else ~/.cache/curvdetect)",
    )
