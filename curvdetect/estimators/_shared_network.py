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
    itself) or a bare module; or other parameters that hold one, which are named.
    """

    _shared_parameters: tuple[str, ...] = ("model",)

    def __sklearn_clone__(self) -> Any:
        # BaseEstimator would copy the weights of a bare module: hide it meanwhile.
        hidden = type(self).__new__(type(self))
        shared = self._shared_parameters
        hidden.__dict__.update(vars(self), **{name: _Shared() for name in shared})
        clone = BaseEstimator.__sklearn_clone__(hidden)
        for name in shared:
            setattr(clone, name, getattr(self, name))
        return clone

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        for name in self._shared_parameters:
            if isinstance(state[name], nn.Module):
                state[name] = portable(state[name])
        return state


class _Shared:
    """Stands for a model while an estimator is cloned."""

    def __sklearn_clone__(self) -> _Shared:
        return self
