"""A small ConvNet with GELU, for small grey images."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """A ConvNet with GELU and depthwise convolutions, 56,394 weights.

    Two stages of two blocks each, with 32 and 64 channels at half and a quarter of the
    resolution, after ConvNeXt (Liu et al. 2022): a depthwise 5 x 5 convolution, a
    normalisation over each image, and a GELU layer twice as wide, around which there is
    a shortcut. It is smooth, with derivatives of every order, and an image's logits do
    not depend on its batch.

    Parameters
    ----------
    n_classes : int, default=10
        Number of logits.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.networks import ConvNet
    >>> ConvNet()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, stride=2, padding=1),
            _norm(32),
            _Block(32),
            _Block(32),
            _norm(32),
            nn.Conv2d(32, 64, kernel_size=2, stride=2),
            _Block(64),
            _Block(64),
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.LayerNorm(64),
            nn.Linear(64, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images.

        Parameters
        ----------
        x : Tensor of shape (n_samples, 1, height, width)
            Grey images.

        Returns
        -------
        Tensor of shape (n_samples, n_classes)
            Logits.
        """
        logits: Tensor = self.classifier(self.features(x))
        return logits


class _Block(nn.Module):
    """A depthwise convolution, and a layer for each pixel, with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=5, padding=2, groups=width),
            _norm(width),
            nn.Conv2d(width, 2 * width, kernel_size=1),
            nn.GELU(),
            nn.Conv2d(2 * width, width, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


def _norm(width: int) -> nn.Module:
    """Normalise over all channels and pixels of an image, and scale each channel."""
    return nn.GroupNorm(1, width)
