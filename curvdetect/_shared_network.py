"""What an estimator with a network as its parameter `model` needs."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

from curvdetect._portable import portable

__all__ = ["SharedNetworkMixin"]


class SharedNetworkMixin:
    """Clones share the network; pickles and hashes of it are the same everywhere.

    For a BaseEstimator with a parameter `model`, a TorchModel (which sees to both
    itself) or a bare module.
    """

    model: Any

    def __sklearn_clone__(self) -> Any:
        # BaseEstimator would copy the weights of a bare module: hide it meanwhile.
        hidden = type(self).__new__(type(self))
        hidden.__dict__.update(vars(self), model=_Shared())
        clone = BaseEstimator.__sklearn_clone__(hidden)
        clone.model = self.model
        return clone

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        if isinstance(self.model, nn.Module):
            state["model"] = portable(self.model)
        return state


class _Shared:
    """Stands for a model while an estimator is cloned."""

    def __sklearn_clone__(self) -> _Shared:
        return self
