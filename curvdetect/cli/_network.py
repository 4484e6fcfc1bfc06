"""A network of your own: its options, and how it is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curvdetect import TorchModel

__all__ = ["add_model", "add_weights", "loaded_model"]


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add where the network comes from."""
    parser.add_argument(
        "--model",
        required=True,
        dest="factory",
        metavar="PACKAGE.MODULE:FACTORY",
        help="a function without arguments that returns the network, or the network; "
        "or a .pt2 file of torch.export; code of your own, which is executed",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add what a network needs that comes without a guard."""
    parser.add_argument("--weights", type=Path, help="state dict of the network")
    parser.add_argument(
        "--input-shape",
        type=_shape,
        required=True,
        metavar="C,H,W",
        help="channels (1 or 3), height and width",
    )
    parser.add_argument(
        "--mean", type=_numbers, help="of the normalisation: m or m,m,m"
    )
    parser.add_argument("--std", type=_numbers, help="of the normalisation: s or s,s,s")


def loaded_model(
    factory: str,
    weights: str | Path | None,
    *,
    input_shape: tuple[int, int, int],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    device: str | None,
) -> TorchModel:
    """Load the network that these options describe."""
    from curvdetect.network import TorchModel, load_module

    return TorchModel(
        load_module(factory, weights),
        input_shape=input_shape,
        mean=mean,
        std=std,
        device=device,
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(int(part) for part in text.split(","))
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise ValueError
    return shape
