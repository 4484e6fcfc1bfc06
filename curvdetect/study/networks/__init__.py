"""Two small image classifiers, for the demo, the tests and the benchmarks.

torchvision has neither of them: LeNet for 28 x 28 grey images (its weights are
shipped with this package) and the ResNet-20 that is customary on CIFAR-10.
:func:`trained_model` gives either of them ready to be measured; :func:`train_lenet`
and :func:`train_on_digits` train another.
"""

from curvdetect.study.networks.lenet import LeNet, load_lenet
from curvdetect.study.networks.resnet20 import ResNet20, load_resnet20
from curvdetect.study.networks.trained import trained_model
from curvdetect.study.networks.training import train_lenet, train_on_digits

__all__ = [
    "LeNet",
    "ResNet20",
    "load_lenet",
    "load_resnet20",
    "train_lenet",
    "train_on_digits",
    "trained_model",
]
