"""Clean images as users meet them: noisy, blurred, pale, light, compressed, tilted.

Kinds and severities of noise, blur, contrast, brightness and JPEG are those of
CIFAR-10-C (D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to
common corruptions and perturbations", ICLR 2019), which are made for small images;
rotation is by 2 to 10 degrees. torchvision changes the images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from benchmarks.common.results import rounded
from curvdetect.study import metrics

__all__ = ["SEVERITIES", "corrupted", "flagged_corrupted"]

#: By kind, from severity 1 to 5: standard deviation; that of the blur, in pixels; what
#: is left of the contrast; what is added; quality; degrees.
SEVERITIES = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "JPEG": (80, 65, 58, 50, 40),
    "rotation": (2, 4, 6, 8, 10),
}


def corrupted(
    X: npt.NDArray[np.float32], kind: str, severity: int
) -> npt.NDArray[np.float32]:
    """Return images (n, C, H, W) in [0, 1], corrupted, in steps of 1/255."""
    strength, x = SEVERITIES[kind][severity - 1], torch.from_numpy(np.asarray(X))
    generator = torch.Generator().manual_seed(severity)
    if kind == "noise":
        found = x + strength * torch.randn(x.shape, generator=generator)
    elif kind == "blur":
        size = 2 * round(4 * strength) + 1
        found = functional.gaussian_blur(x, [size, size], [strength, strength])
    elif kind == "contrast":
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        found = mean + strength * (x - mean)
    elif kind == "brightness":
        found = x + strength
    elif kind == "JPEG":
        found = torch.stack([_compressed(image, strength) for image in x])
    else:
        sign = torch.randint(2, (len(x),), generator=generator) * 2 - 1
        found = torch.stack(
            [
                functional.rotate(
                    image, float(strength * s), InterpolationMode.BILINEAR
                )
                for image, s in zip(x, sign, strict=True)
            ]
        )
    return (255 * found.clamp(0, 1)).round().div(255).float().numpy()


def _compressed(image: Tensor, quality: int) -> Tensor:
    in_bytes = (255 * image).round().to(torch.uint8)
    grey = len(image) == 1
    colours = in_bytes.expand(3, -1, -1).contiguous()
    found = functional.jpeg(colours, quality).float() / 255
    return found.mean(dim=0, keepdim=True) if grey else found


def flagged_corrupted(detector, X, y, at: dict[float, float]) -> dict:
    """Return how many corrupted images are flagged, by kind and severity.

    Of those that the network still gets right, and, which is no fault, of the others;
    with how many it gets right.
    """
    return {name: cell for name, cell in _cells(detector, X, y, at)}


def _cells(detector, X, y, at) -> Iterator[tuple[str, dict]]:
    for kind, strengths in SEVERITIES.items():
        for severity in range(1, len(strengths) + 1):
            found = detector.examine(corrupted(X, kind, severity))
            right = found.logits.argmax(axis=1) == y
            cell = {"n": len(y), "n_right": int(right.sum())}
            for rate, threshold in at.items():
                flagged = found.score > threshold
                for name, of in (("right", right), ("wrong", ~right)):
                    share = rounded(metrics.proportion(flagged[of]))
                    cell[f"{name}, {rate}"] = share
            yield f"{kind} {severity}", cell
