"""Two small image classifiers, for the demo, the tests and the benchmarks.

torchvision has neither of them: LeNet for 28 x 28 grey images (its weights are
shipped with this package) and the ResNet-20 that is customary on CIFAR-10.
:func:`trained_model` gives either of them ready to be measured.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from curvdetect.network import TorchModel
from curvdetect.study.datasets import default_data_dir

__all__ = ["LeNet", "ResNet20", "load_lenet", "load_resnet20", "trained_model"]

#: What the ResNet-20 was trained on is normalised by: ImageNet's, of each channel.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max-pooling, 61,706 weights at 28 x 28 pixels.

    Parameters
    ----------
    n_classes : int, default=10
        Number of logits.
    image_size : int, default=28
        Height and width of the grey image; at least 8.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.networks import LeNet
    >>> LeNet()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        side = (image_size // 2 - 4) // 2 if image_size >= 16 else image_size // 4
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            # A small image has no border to lose.
            nn.Conv2d(6, 16, kernel_size=5, padding=0 if image_size >= 16 else 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images.

        Parameters
        ----------
        x : Tensor of shape (n_samples, 1, image_size, image_size)
            Grey images.

        Returns
        -------
        Tensor of shape (n_samples, n_classes)
            Logits.
        """
        logits: Tensor = self.classifier(self.features(x))
        return logits


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride = stride
        self.n_padding = (n_out - n_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        padding = (0, 0, 0, 0, self.n_padding, self.n_padding)
        return functional.relu(out + functional.pad(shortcut, padding))


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 (He et al. 2016, section 4.2, shortcut A).

    The names of its weights are those of github.com/akamaster/pytorch_resnet_cifar10,
    whose trained files it loads.

    Parameters
    ----------
    n_classes : int, default=10
        Number of logits.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.networks import ResNet20
    >>> ResNet20().eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, stride=1)
        self.layer2 = self._stage(16, 32, stride=2)
        self.layer3 = self._stage(32, 64, stride=2)
        self.linear = nn.Linear(64, n_classes)

    @staticmethod
    def _stage(n_in: int, n_out: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            _BasicBlock(n_in, n_out, stride),
            _BasicBlock(n_out, n_out, 1),
            _BasicBlock(n_out, n_out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of normalised images.

        Parameters
        ----------
        x : Tensor of shape (n_samples, 3, height, width)
            Images, normalised as in training.

        Returns
        -------
        Tensor of shape (n_samples, n_classes)
            Logits.
        """
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(torch.mean(out, dim=(2, 3)))
        return logits


def load_lenet(dataset: str) -> LeNet:
    """Load a LeNet that was trained with ``benchmarks/make_assets.py``.

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
    with (resources.files("curvdetect") / "assets" / name).open("rb") as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    module = LeNet()
    module.load_state_dict(weights)  # half precision in the file, single in memory
    return module.eval()


def load_resnet20(data_dir: str | Path | None = None) -> ResNet20:
    """Load a ResNet-20 that was trained on CIFAR-10, in eval mode.

    It expects images normalised by the mean (0.485, 0.456, 0.406) and the standard
    deviation (0.229, 0.224, 0.225) of each channel.

    Parameters
    ----------
    data_dir : str or Path, optional
        Where data sets are; :func:`curvdetect.study.datasets.default_data_dir` by default.
        ``cifar10/resnet20-12fca82f.th`` there is the file of
        github.com/akamaster/pytorch_resnet_cifar10.

    Returns
    -------
    ResNet20
        Trained network.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    """
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    path = root / "cifar10" / "resnet20-12fca82f.th"
    if not path.exists():
        raise FileNotFoundError(
            f"the trained ResNet-20 is missing: put resnet20-12fca82f.th of "
            f"github.com/akamaster/pytorch_resnet_cifar10 at {path}"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module = ResNet20()
    module.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    module.eval()
    return module


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
