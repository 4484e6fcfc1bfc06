"""Trained networks by name, wrapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from curvdetect.network import TorchModel
from curvdetect.study.networks.resnet20 import load_resnet20
from curvdetect.study.networks.shipped import load_convnet, load_lenet, load_vit

__all__ = ["NETWORKS", "trained_model"]

#: Names that :func:`trained_model` knows, and the data set of each.
NETWORKS = {
    "fashion-mnist": "fashion-mnist",
    "fashion-mnist-vit": "fashion-mnist",
    "fashion-mnist-convnet": "fashion-mnist",
    "mnist": "mnist",
    "cifar10": "cifar10",
}
_SHIPPED: dict[str, Callable[[], nn.Module]] = {
    "fashion-mnist": partial(load_lenet, "fashion-mnist"),
    "fashion-mnist-vit": load_vit,
    "fashion-mnist-convnet": load_convnet,
    "mnist": partial(load_lenet, "mnist"),
}
#: What the ResNet-20 was trained on is normalised by: ImageNet's, of each channel.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def trained_model(
    name: str,
    *,
    weights: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
) -> TorchModel:
    """Return a trained network, ready to be measured.

    Parameters
    ----------
    name : {"fashion-mnist", "fashion-mnist-vit", "fashion-mnist-convnet", "mnist", \
            "cifar10"}
        The data set that it is for: a LeNet, or for CIFAR-10 the ResNet-20; with
        ``-vit`` or ``-convnet`` a :class:`SmallViT` or :class:`ConvNet`.
        :data:`NETWORKS` has the data set of each name.
    weights : str or Path, optional
        State dict of a network of your own of the same kind; the one that is shipped
        by default.
    data_dir : str or Path, optional
        Where :func:`load_resnet20` looks.
    device : str, optional
        torch device.

    Returns
    -------
    TorchModel
        It takes images in [0, 1].

    Raises
    ------
    ValueError
        If there is no network called `name`, or `weights` are given for CIFAR-10.
    FileNotFoundError
        If the file of the ResNet-20 is missing.

    Examples
    --------
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import trained_model
    >>> X, y = load_fashion_mnist_sample()
    >>> bool((trained_model("fashion-mnist").predict(X) == y).mean() > 0.88)
    True
    """
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {sorted(NETWORKS)}; got {name!r}")
    if name == "cifar10":
        if weights is not None:
            raise ValueError(f"weights must be None for cifar10; got {weights!r}")
        return TorchModel(
            load_resnet20(data_dir),
            input_shape=(3, 32, 32),
            mean=_MEAN,
            std=_STD,
            device=device,
        )
    module = _SHIPPED[name]()
    if weights is not None:
        known = torch.load(weights, map_location="cpu", weights_only=True)
        module.load_state_dict(known)
    return TorchModel(module, input_shape=(1, 28, 28), device=device)
