"""What an estimator holds: parameters, what `fit` learned, and the network.

Pickles, files and state dicts all hold estimators without their network, each in its
own way; they agree here on what is learned and where networks are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from torch import nn

from curvdetect._base.warn import warn
from curvdetect.network import TorchModel
from curvdetect.network.modules import uncompiled
from curvdetect.signals import Companion, Signal

__all__ = [
    "as_model",
    "bounds_for",
    "is_network",
    "learned",
    "module_of",
    "networks_replaced",
    "warn_of_no_bounds",
]

#: What a bare module's images lie within, unless those of `fit` do not.
_USUAL = (0.0, 1.0)
_TOLERANCE = 1e-5


def is_network(value: Any) -> bool:
    """Return whether something is a network, wrapped or bare.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
        True for a TorchModel and a torch module.
    """
    return isinstance(value, TorchModel | nn.Module)


def module_of(network: Any) -> nn.Module:
    """Return the torch module of a network, wrapped or bare.

    Parameters
    ----------
    network : TorchModel or torch.nn.Module
        The network.

    Returns
    -------
    torch.nn.Module
        As it was before it was compiled.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(network, TorchModel):
        return network.module
    if isinstance(network, nn.Module):
        return uncompiled(network)
    raise TypeError(
        f"model must be a TorchModel or a torch.nn.Module; got {type(network).__name__}"
    )


def as_model(
    network: Any, shape: tuple[int, ...], bounds: tuple[float, float] | None
) -> TorchModel:
    """Return a network as a TorchModel: as it is, or a bare one wrapped.

    Parameters
    ----------
    network : TorchModel or torch.nn.Module
        The network.
    shape : tuple of int
        Of an image, for a bare module.
    bounds : (float, float) or None
        Of its values, for a bare module; see :func:`bounds_for`.

    Returns
    -------
    TorchModel
        `network` itself, if it is one.

    Raises
    ------
    TypeError
        If it is something else than a network.
    """
    if isinstance(network, TorchModel):
        return network
    return TorchModel(module_of(network), input_shape=shape, bounds=bounds)


def bounds_for(network: Any, images: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return the bounds of a network: its own, or for a bare one what images show.

    Parameters
    ----------
    network : TorchModel or torch.nn.Module
        The network.
    images : ndarray of shape (n, ...)
        What it is fitted with.

    Returns
    -------
    (float, float) or None
        For a bare module (0, 1), which images have unless they were normalised; None
        if these lie outside. Bytes do so too, but no network takes them as they are by
        chance: they keep (0, 1), and are refused.
    """
    if isinstance(network, TorchModel):
        return network.bounds
    low, high = float(np.min(images)), float(np.max(images))
    if low >= _USUAL[0] - _TOLERANCE and high <= _USUAL[1] + _TOLERANCE:
        return _USUAL
    if low >= 0 and 127 < high <= 255 and np.array_equal(images, np.round(images)):
        return _USUAL
    return None


def warn_of_no_bounds(network: Any, bounds: tuple[float, float] | None) -> None:
    """Say that a bare module is taken to have no bounds, and what that means.

    Parameters
    ----------
    network : TorchModel or torch.nn.Module
        The network; a TorchModel knows its bounds.
    bounds : (float, float) or None
        What :func:`bounds_for` returned.

    Warns
    -----
    UserWarning
        If there are none, and nobody said so.
    """
    if bounds is None and not isinstance(network, TorchModel):
        warn(
            "X has values outside [0, 1] and model is a bare module, so no bounds are "
            "kept to: no value is refused, and attacks that it learns from may make "
            "images that no camera does. If the images were normalised, undo it and "
            "give TorchModel(module, mean=..., std=...); else say what they are: "
            "TorchModel(module, bounds=(low, high)), or bounds=None"
        )


def learned(estimator: BaseEstimator) -> dict[str, Any]:
    """Return what `fit` set, but for networks.

    Parameters
    ----------
    estimator : estimator
        Fitted, or not: then there is nothing.

    Returns
    -------
    dict of str to object
        The attributes whose names end with an underscore.
    """
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_")
        and not name.startswith("_")
        and not (is_network(value) or isinstance(value, Companion))
    }


def networks_replaced(holder: Any, change: Callable[[Any], Any]) -> Any:
    """Copy something with everything that it holds changed; arrays are shared.

    Estimators, signals, dicts, lists and tuples are followed; `change` is called with
    whatever else there is, networks among it.

    Parameters
    ----------
    holder : object
        An estimator, or what one holds.
    change : callable
        Returns what is to stand in the place of its argument.

    Returns
    -------
    object
        The copy. No estimator in it has a cache (`memory`): those are pickled, and
        joblib would execute what a stranger put there; nor attacks, which are code.
    """
    if isinstance(holder, BaseEstimator | Signal):
        copied: Any = object.__new__(type(holder))
        vars(copied).update(networks_replaced(vars(holder), change))
        for name in ("memory", "attacks"):
            if name in vars(copied):
                vars(copied)[name] = None
        return copied
    if isinstance(holder, dict):
        return {key: networks_replaced(held, change) for key, held in holder.items()}
    if type(holder) in (list, tuple):
        return type(holder)(networks_replaced(held, change) for held in holder)
    return change(holder)
