"""A companion as a parameter: what is allowed, and whether it fits the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from curvdetect._base.warn import warn
from curvdetect.network import TorchModel
from curvdetect.signals import Companion

__all__ = ["as_companion", "check_companion", "companion_for"]

#: A companion that agrees on fewer clean images has other classes, or another order.
_LEAST_AGREEMENT = 0.5


def check_companion(held: Any) -> None:
    """Refuse what can be no companion.

    Raises
    ------
    TypeError
        If it is neither a Companion, nor a network, nor None.
    """
    if not isinstance(held, Companion | TorchModel | nn.Module | None):
        raise TypeError(
            "companion must be a Companion, a TorchModel, a torch.nn.Module or None; "
            f"got {type(held).__name__}"
        )


def as_companion(
    held: Any, model: TorchModel, input_shape: tuple[int, ...]
) -> Companion | None:
    """Return a parameter `companion` as one.

    Parameters
    ----------
    held : Companion, TorchModel, torch.nn.Module or None
        A bare module takes what the guarded network takes, with its normalisation.
    model : TorchModel
        The guarded network.
    input_shape : tuple of int
        What it takes.

    Returns
    -------
    Companion or None
        None for None.
    """
    if held is None or isinstance(held, Companion):
        return held
    if isinstance(held, nn.Module):
        held = TorchModel(
            held,
            input_shape=input_shape,
            bounds=model.bounds,
            mean=model.mean,
            std=model.std,
        )
    return Companion(held)


def companion_for(
    held: Any, model: TorchModel, images: Tensor, labels: Tensor
) -> tuple[Companion | None, float]:
    """Return a companion that fits a network, and what it costs.

    Parameters
    ----------
    held : Companion, TorchModel, torch.nn.Module or None
        The parameter.
    model : TorchModel
        The guarded network.
    images : Tensor of shape (n, *input_shape)
        Clean ones.
    labels : Tensor of shape (n,)
        What the network says of them.

    Returns
    -------
    tuple of Companion or None, and float
        What a forward pass of it costs, in those of the network.

    Raises
    ------
    ValueError
        If it is the network itself, or does not fit it.

    Warns
    -----
    UserWarning
        If it agrees with the network on less than half of the images.
    """
    shape = tuple(images.shape[1:])
    companion = as_companion(held, model, shape)
    if companion is None:
        return None, 0.0
    if companion.model.module is model.module:
        raise ValueError(
            "companion must be another network than model: itself, it has no second "
            "opinion; train one with curvdetect.study.training.train_companion"
        )
    same = []
    with model.evaluating(), companion.model.evaluating(), torch.no_grad():
        size = model.rows_per_batch(images[:1])
        batches = zip(model.split(images), labels.split(size), strict=True)
        for x, label in batches:
            own = companion.log_probabilities(x, model.bounds, model.n_classes)
            same.append(own.argmax(dim=1).cpu() == label.cpu())
        passes = companion.passes_of(model, x)
    agreement = float(torch.cat(same).double().mean())
    if agreement < _LEAST_AGREEMENT:
        warn(
            f"the companion agrees with the network on {agreement:.0%} of the clean "
            "images: has it the same classes, in the same order, and the same mean and "
            "std as it was trained with? See Companion(model, classes=[...])"
        )
    return companion, passes
