"""A small vision transformer, for small grey images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SmallViT"]


class SmallViT(nn.Module):
    """A vision transformer with three blocks, 75,778 weights at 28 x 28 pixels.

    Three convolutions make 48 numbers of every 4 x 4 pixels, which learns sooner than a
    matrix does (Xiao et al. 2021), and a learnt position is added; three blocks of
    attention with four heads and of a GELU layer twice as wide, each normalised before
    (Dosovitskiy et al. 2021), follow; the mean over patches is classified. It is
    smooth, with derivatives of every order, and an image's logits do not depend on its
    batch.

    Parameters
    ----------
    n_classes : int, default=10
        Number of logits.
    image_size : int, default=28
        Height and width of the grey image; a multiple of 4.

    Examples
    --------
    >>> import torch
    >>> from curvdetect.study.networks import SmallViT
    >>> SmallViT()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        if image_size < 4 or image_size % 4:
            raise ValueError(f"image_size must be a multiple of 4; got {image_size}")
        width = 48
        self.patches = nn.Sequential(
            *_convolution(1, width // 2, stride=2),
            *_convolution(width // 2, width // 2, stride=1),
            nn.Conv2d(width // 2, width, kernel_size=3, stride=2, padding=1),
        )
        n_patches = (image_size // 4) ** 2
        self.positions = nn.Parameter(0.02 * torch.randn(n_patches, width))
        self.blocks = nn.Sequential(*(_Block(width, n_heads=4) for _ in range(3)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, n_classes)

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
        tokens = self.patches(x).flatten(2).mT + self.positions
        logits: Tensor = self.classifier(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


def _convolution(n_in: int, n_out: int, stride: int) -> tuple[nn.Module, ...]:
    """Return a convolution, normalised over each image, and GELU."""
    convolution = nn.Conv2d(n_in, n_out, kernel_size=3, stride=stride, padding=1)
    return convolution, nn.GroupNorm(1, n_out), nn.GELU()


class _Block(nn.Module):
    """Attention, then a layer for each token, with a shortcut around either."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), _Attention(width, n_heads))
        self.layer = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(tokens)
        return tokens + self.layer(tokens)


class _Attention(nn.Module):
    """Self-attention, written out.

    So it has derivatives of every order for whoever takes them, which the fast kernels
    of torch's `scaled_dot_product_attention` have not; and one path with and without
    gradients, which `nn.TransformerEncoderLayer` has not.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, n_tokens, width = tokens.shape
        heads = self.project(tokens).reshape(n, n_tokens, 3, self.n_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        scores = (query / math.sqrt(query.shape[-1])) @ key.mT
        mixed = scores.softmax(dim=-1) @ value
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(n, n_tokens, width))
        return result
