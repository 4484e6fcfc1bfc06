"""The networks whose weights are shipped with the package."""

from __future__ import annotations

from importlib import resources
from typing import TypeVar

import torch
from torch import nn

from curvdetect.study.networks.convnet import ConvNet
from curvdetect.study.networks.lenet import LeNet
from curvdetect.study.networks.vit import SmallViT

__all__ = ["load_convnet", "load_lenet", "load_vit"]

Network = TypeVar("Network", bound=nn.Module)


def load_lenet(dataset: str) -> LeNet:
    """Load a LeNet that was trained with ``python -m benchmarks assets``.

    Parameters
    ----------
    dataset : {"fashion-mnist", "mnist"}
        What it was trained on: all training images but the last 5,000.

    Returns
    -------
    LeNet
        In eval mode, on the CPU; it takes images in [0, 1].

    Raises
    ------
    ValueError
        If there is no network for `dataset`.

    Examples
    --------
    >>> from curvdetect.study.networks import load_lenet
    >>> load_lenet("fashion-mnist").training
    False
    """
    if dataset not in ("fashion-mnist", "mnist"):
        raise ValueError(f'dataset must be "fashion-mnist" or "mnist"; got {dataset!r}')
    name = f"lenet_{dataset.replace('-', '_')}.pt"
    return _with_weights(LeNet(), name)


def load_vit() -> SmallViT:
    """Load a small vision transformer that was trained on Fashion-MNIST.

    By ``python -m benchmarks assets``, on all training images but the last 5,000.

    Returns
    -------
    SmallViT
        In eval mode, on the CPU; it takes images in [0, 1].

    Examples
    --------
    >>> from curvdetect.study.networks import load_vit
    >>> load_vit().training
    False
    """
    return _with_weights(SmallViT(), "vit_fashion_mnist.pt")


def load_convnet() -> ConvNet:
    """Load a ConvNet with GELU that was trained on Fashion-MNIST.

    By ``python -m benchmarks assets``, on all training images but the last 5,000.

    Returns
    -------
    ConvNet
        In eval mode, on the CPU; it takes images in [0, 1].

    Examples
    --------
    >>> from curvdetect.study.networks import load_convnet
    >>> load_convnet().training
    False
    """
    return _with_weights(ConvNet(), "convnet_fashion_mnist.pt")


def _with_weights(module: Network, name: str) -> Network:
    """Load the weights of an asset into a network; return it in eval mode."""
    with (resources.files("curvdetect") / "assets" / name).open("rb") as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    module.load_state_dict(weights)  # half precision in the file, single in memory
    return module.eval()
