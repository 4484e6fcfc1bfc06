"""LeNet, for small grey images."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["LeNet"]


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
