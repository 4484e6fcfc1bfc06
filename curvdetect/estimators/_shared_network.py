"""What an estimator with a network as its parameter `model` needs."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

from curvdetect.network.portable import portable

__all__ = ["SharedNetworkMixin"]


class SharedNetworkMixin:
    """Clones share the network; pickles and hashes of it are the same everywhere.

    For a BaseEstimator with a parameter `model`, a TorchModel (which sees to both
    itself) or a bare module; or another parameter that holds one, which is named.
    """

    _shared_parameter = "model"

    def __sklearn_clone__(self) -> Any:
        # BaseEstimator would copy the weights of a bare module: hide it meanwhile.
        hidden = type(self).__new__(type(self))
        shared = self._shared_parameter
        hidden.__dict__.update(vars(self), **{shared: _Shared()})
        clone = BaseEstimator.__sklearn_clone__(hidden)
        setattr(clone, shared, getattr(self, shared))
        return clone

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        held = state[self._shared_parameter]
        if isinstance(held, nn.Module):
            state[self._shared_parameter] = portable(held)
        return state


class _Shared:
    """Stands for a model while an estimator is cloned."""

    def __sklearn_clone__(self) -> _Shared:
        return self
