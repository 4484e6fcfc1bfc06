"""ResNet-20, for CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from curvdetect.study.datasets import default_data_dir

__all__ = ["ResNet20", "load_resnet20"]


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


def load_resnet20(data_dir: str | Path | None = None) -> ResNet20:
    """Load a ResNet-20 that was trained on CIFAR-10, in eval mode.

    It expects images normalised by the mean (0.485, 0.456, 0.406) and the standard
    deviation (0.229, 0.224, 0.225) of each channel.

    Parameters
    ----------
    data_dir : str or Path, optional
        Where data sets are; by default
        :func:`curvdetect.study.datasets.default_data_dir`.
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
