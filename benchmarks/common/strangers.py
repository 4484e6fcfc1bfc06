"""Networks that nobody here trained: those of VNN-COMP 2021, as ONNX files in a folder.

Needs onnx and onnx2torch (``pip install onnx onnx2torch``). Convnet_maxpool, a small
convolutional network, ffnnSIGMOID__Point_6x200, six hidden layers of sigmoids, and
mnist-net_256x4, fully connected with ReLU, are for MNIST; cifar10_large and resnet_4b,
a residual one, for CIFAR-10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from curvdetect import TorchModel
from curvdetect.study.datasets import load_dataset

__all__ = ["STRANGERS", "images_of", "load_stranger"]

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
#: File, data set, and how images (n, C, H, W) in [0, 1] are given to the network.
STRANGERS = {
    "Convnet_maxpool": ("mnist", lambda x: x),
    "ffnnSIGMOID__Point_6x200": ("mnist", lambda x: x),
    "mnist-net_256x4": ("mnist", lambda x: x.flatten(1)[..., None]),
    "cifar10_large": ("cifar10", lambda x: x.permute(0, 2, 3, 1)),
    "resnet_4b": ("cifar10", lambda x: x),
}


class _Given(nn.Module):
    """A network that is given images in its own layout, and gives rows of logits."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: Tensor) -> Tensor:
        _, layout = STRANGERS[self.name]
        return self.network(layout(x)).reshape(x.shape[0], -1)


def load_stranger(name: str, folder: str | Path) -> TorchModel:
    """Return a network, ready to be measured."""
    import onnx
    from onnx2torch import convert

    network = convert(onnx.load(str(Path(folder) / f"{name}.onnx")))
    data, _ = STRANGERS[name]
    normalised = {"mean": _MEAN, "std": _STD} if name == "resnet_4b" else {}
    return TorchModel(
        _Given(network, name).eval(),
        input_shape=(1, 28, 28) if data == "mnist" else (3, 32, 32),
        **normalised,
    )


def images_of(name: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return test images, which it was not trained on."""
    return load_dataset(STRANGERS[name][0], data_dir=data_dir)
