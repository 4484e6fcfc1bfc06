"""Networks that nobody here trained: those of VNN-COMP, as ONNX files in a folder.

Needs onnx and onnx2torch (``pip install onnx onnx2torch``). Of `STRANGERS`, of 2021,
Convnet_maxpool, a small convolutional network, ffnnSIGMOID__Point_6x200, six hidden
layers of sigmoids, and mnist-net_256x4, fully connected with ReLU, are for MNIST;
cifar10_large and resnet_4b, a residual one, for CIFAR-10. `LATER` are the others of
2021 for these data (but those of cifar2020, which its repository does not hold), and
the two vision transformers of 2023: nobody here had looked at them when the detectors
were made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from curvdetect import TorchModel
from curvdetect.network.sources.onnx import load_onnx
from curvdetect.study.datasets import load_dataset

__all__ = ["LATER", "STRANGERS", "images_of", "load_stranger"]

Mean = tuple[float, float, float]


class _Stranger(NamedTuple):
    """The data of a network, and how images (n, C, H, W) in [0, 1] are given to it."""

    data: str
    layout: Callable[[Tensor], Tensor] = lambda x: x
    mean: Mean | None = None
    std: Mean | None = None


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)[..., None]


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


_STANDARDISED = _Stranger(
    "cifar10", mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616)
)
_ROBUST = _Stranger("cifar10", mean=(0.485, 0.456, 0.406), std=(0.225, 0.225, 0.225))
STRANGERS = {
    "Convnet_maxpool": _Stranger("mnist"),
    "ffnnSIGMOID__Point_6x200": _Stranger("mnist"),
    "mnist-net_256x4": _Stranger("mnist", _flat),
    "cifar10_large": _Stranger("cifar10", _channels_last),
    "resnet_4b": _STANDARDISED,
}
LATER = {
    "Convnet_avgpool": _Stranger("mnist"),
    "mnist_relu_9_200": _Stranger("mnist"),
    "mnist-net_256x2": _Stranger("mnist", _flat),
    "mnist-net_256x6": _Stranger("mnist", _flat),
    "cifar10_small": _Stranger("cifar10", _channels_last),
    "cifar10_medium": _Stranger("cifar10", _channels_last),
    "resnet_2b": _STANDARDISED,
    "cifar_base_kw": _ROBUST,
    "cifar_deep_kw": _ROBUST,
    "cifar_wide_kw": _ROBUST,
    "pgd_2_3_16": _STANDARDISED,
    "ibp_3_3_8": _STANDARDISED,
}
_ALL = {**STRANGERS, **LATER}


class _Given(nn.Module):
    """A network that is given images in its own layout, and gives rows of logits."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: Tensor) -> Tensor:
        return self.network(_ALL[self.name].layout(x)).reshape(x.shape[0], -1)


def load_stranger(name: str, folder: str | Path) -> TorchModel:
    """Return a network, ready to be measured."""
    stranger = _ALL[name]
    return TorchModel(
        _Given(load_onnx(Path(folder) / f"{name}.onnx"), name).eval(),
        input_shape=(1, 28, 28) if stranger.data == "mnist" else (3, 32, 32),
        mean=stranger.mean,
        std=stranger.std,
    )


def images_of(name: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return test images, which it was not trained on."""
    return load_dataset(STRANGERS[name].data, data_dir=data_dir)
