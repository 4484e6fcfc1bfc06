"""What an estimator holds: parameters, what `fit` learned, and the network.

Pickles, files and state dicts all hold estimators without their network, each in its
own way; they agree here on what is learned and where networks are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

from curvdetect.network import TorchModel
from curvdetect.network.modules import uncompiled
from curvdetect.signals import Companion, Signal

__all__ = ["is_network", "learned", "module_of", "networks_replaced"]


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
