"""Training on images with Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from curvdetect._base.checks import check_positive

__all__ = ["GaussianNoise"]


class GaussianNoise:
    """Cross-entropy on images with Gaussian noise: for votes on noisy neighbours.

    Parameters
    ----------
    sigma : float
        Standard deviation of every value, in input units; nothing is clamped.

    References
    ----------
    J. Cohen, E. Rosenfeld, J. Z. Kolter, "Certified adversarial robustness via
    randomized smoothing", ICML 2019.

    Examples
    --------
    >>> from curvdetect.study.training import GaussianNoise
    >>> GaussianNoise(sigma=0.25)
    GaussianNoise(sigma=0.25)
    """

    def __init__(self, *, sigma: float) -> None:
        check_positive("sigma", sigma)
        self.sigma = sigma

    def __repr__(self) -> str:
        return f"GaussianNoise(sigma={self.sigma!r})"

    def __call__(
        self, module: nn.Module, x: Tensor, y: Tensor, progress: float
    ) -> Tensor:
        """Return the mean cross-entropy of a batch with noise.

        Parameters
        ----------
        module : torch.nn.Module
            The network.
        x, y : Tensor of shape (n, *input_shape) and (n,)
            Images and labels.
        progress : float
            Not used.

        Returns
        -------
        Tensor
            A number.
        """
        return functional.cross_entropy(module(x + self.sigma * torch.randn_like(x)), y)
