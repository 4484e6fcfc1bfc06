"""A network of your own: its options, and how it is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from curvdetect.cli._options import check_device
from curvdetect.cli._streams import results_alone

if TYPE_CHECKING:
    from torch import nn

    from curvdetect import TorchModel

__all__ = ["add_companion", "add_model", "add_weights", "loaded_model", "loaded_module"]


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
    parser.add_argument(
        "--weights",
        type=Path,
        help="state dict of the network, or a checkpoint with one",
    )
    parser.add_argument(
        "--weights-key",
        metavar="KEY",
        help="which, where a checkpoint has several that fit, such as state_dict_ema",
    )
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


def add_companion(parser: argparse.ArgumentParser) -> None:
    """Add where the second network of a guard comes from."""
    parser.add_argument(
        "--companion",
        metavar="PACKAGE.MODULE:FACTORY",
        help="a second network that the guard asks about every image, as --model",
    )


def loaded_module(
    factory: str,
    weights: str | Path | None = None,
    *,
    weights_key: str | None = None,
    device: str | None,
) -> nn.Module:
    """Load a network to where it is to compute; what its code prints goes to stderr."""
    from curvdetect.network import load_module

    check_device(device)
    with results_alone():
        module = load_module(factory, weights, weights_key=weights_key)
        return module.to(device or "cpu")


def loaded_model(
    factory: str,
    weights: str | Path | None,
    *,
    weights_key: str | None,
    input_shape: tuple[int, int, int],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    device: str | None,
) -> TorchModel:
    """Load the network that these options describe."""
    from curvdetect.network import TorchModel

    module = loaded_module(factory, weights, weights_key=weights_key, device=device)
    return TorchModel(module, input_shape=input_shape, mean=mean, std=std)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(int(part) for part in text.split(","))
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise ValueError
    return shape
