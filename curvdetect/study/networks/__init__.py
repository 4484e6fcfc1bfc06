"""Small image classifiers, for the demo, the tests and the benchmarks.

torchvision has none of them: for 28 x 28 grey images LeNet, a vision transformer and a
ConvNet with GELU (their weights are shipped with this package), and the ResNet-20 that
is customary on CIFAR-10. :func:`trained_model` gives any of them ready to be measured,
by the names in :data:`NETWORKS`; :func:`train_lenet`, :func:`train_vit`,
:func:`train_convnet` and :func:`train_on_digits` train another.
"""

from curvdetect.study.networks.convnet import ConvNet
from curvdetect.study.networks.lenet import LeNet
from curvdetect.study.networks.resnet20 import ResNet20, load_resnet20
from curvdetect.study.networks.shipped import load_convnet, load_lenet, load_vit
from curvdetect.study.networks.trained import NETWORKS, trained_model
from curvdetect.study.networks.training import (
    train_convnet,
    train_lenet,
    train_on_digits,
    train_vit,
)
from curvdetect.study.networks.vit import SmallViT

__all__ = [
    "NETWORKS",
    "ConvNet",
    "LeNet",
    "ResNet20",
    "SmallViT",
    "load_convnet",
    "load_lenet",
    "load_resnet20",
    "load_vit",
    "train_convnet",
    "train_lenet",
    "train_on_digits",
    "train_vit",
    "trained_model",
]
