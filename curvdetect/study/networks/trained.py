"""The trained network of a data set, wrapped."""

from __future__ import annotations

from pathlib import Path

import torch

from curvdetect.network import TorchModel
from curvdetect.study.networks.lenet import load_lenet
from curvdetect.study.networks.resnet20 import load_resnet20

__all__ = ["trained_model"]

#: What the ResNet-20 was trained on is normalised by: ImageNet's, of each channel.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def trained_model(
    dataset: str,
    *,
    weights: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
) -> TorchModel:
    """Return the trained network of a data set, ready to be measured.

    Parameters
    ----------
    dataset : {"fashion-mnist", "mnist", "cifar10"}
        A LeNet, or for CIFAR-10 the ResNet-20.
    weights : str or Path, optional
        State dict of a LeNet of your own; the one that is shipped by default.
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
        If there is no network for `dataset`, or `weights` are given for CIFAR-10.
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
    if dataset == "cifar10":
        if weights is not None:
            raise ValueError(f"weights must be None for cifar10; got {weights!r}")
        return TorchModel(
            load_resnet20(data_dir),
            input_shape=(3, 32, 32),
            mean=_MEAN,
            std=_STD,
            device=device,
        )
    module = load_lenet(dataset)
    if weights is not None:
        known = torch.load(weights, map_location="cpu", weights_only=True)
        module.load_state_dict(known)
    return TorchModel(module, input_shape=(1, 28, 28), device=device)
