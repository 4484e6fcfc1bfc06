"""Which images the learned guard is given, and by which others it is judged."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.common.networks import development_images, load_images
from benchmarks.common.strangers import STRANGERS, load_stranger
from curvdetect import TorchModel
from curvdetect.study.networks import trained_model

__all__ = [
    "RATES",
    "Split",
    "Subject",
    "load_companion",
    "load_subject",
    "many_clean",
]

#: False-positive rates of thresholds.
RATES = (0.01, 0.05)


class Split(NamedTuple):
    """Images and labels, for one purpose alone."""

    X: np.ndarray
    y: np.ndarray


class Subject(NamedTuple):
    """A network, its data set, and images for each purpose.

    `fit` is what a guard is given, `test` gives the figures, and `more` are further
    ones for what is neither. `data` is also the name of our network for these images.
    """

    model: TorchModel
    data: str
    fit: Split
    test: Split
    more: Split


def load_subject(
    network: str,
    *,
    strangers: str | None = None,
    weights: str | None = None,
    data_dir: str | None = None,
) -> Subject:
    """Return a network of ours or of others, with its images.

    A stranger's MNIST network has test images 2,000 to 2,499 to learn from and 1,000 to
    1,299 to be judged by; ours learn from as many of the last training images, which
    were left out of their training; CIFAR-10 has 600 and 300 of its test images.
    """
    if network in STRANGERS:
        if strangers is None:
            raise SystemExit(f"{network} is a network of others: give --strangers")
        model, data = load_stranger(network, strangers), STRANGERS[network].data
    else:
        data = network
        model = trained_model(network, weights=weights, data_dir=data_dir)
    X, y = load_images(data, data_dir)

    def part(start: int, stop: int | None) -> Split:
        return Split(X[start:stop], y[start:stop])

    if data == "cifar10":
        return Subject(model, data, part(0, 600), part(600, 900), part(900, None))
    fit = part(2000, 2500)
    if network not in STRANGERS:
        X_fit, y_fit = development_images(data, data_dir)
        fit = Split(X_fit[:500], y_fit[:500])
    return Subject(model, data, fit, part(1000, 1300), part(1300, 1500))


def many_clean(data: str, data_dir: str | None = None) -> Split:
    """Return more test images: some 400 a class, or for CIFAR-10 some 40."""
    X, y = load_images(data, data_dir)
    part = slice(600, None) if data == "cifar10" else slice(4000, 8000)
    return Split(X[part], y[part])


def load_companion(
    data: str, folder: Path | None, data_dir: str | None = None
) -> TorchModel | None:
    """Return the companion that was trained for a data set, if one is asked for."""
    if folder is None:
        return None
    model = trained_model(data, data_dir=data_dir)
    weights = torch.load(folder / f"{data}.pt", weights_only=True)
    model.module.load_state_dict(weights)
    return model
