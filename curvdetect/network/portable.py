"""Pickle a module so that equal modules give equal bytes."""

from __future__ import annotations

import copy
import sys
from pickle import PicklingError
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from joblib.hashing import Hasher
from torch import Tensor, nn

from curvdetect.network.fingerprint import fingerprint

__all__ = ["PortableModule", "portable"]


class PortableModule:
    """Stands for a module in a pickle, and comes out of it as the module.

    torch pickles a tensor with the address of its storage, so that
    ``joblib.hash`` of a module differs from copy to copy. Here the tensors are
    replaced by NumPy arrays; and for joblib's hash, which passes over some of what a
    module may hold, its fingerprint stands for all of it. The module comes back in eval
    mode on the CPU, its parameters trainable: another thread may have frozen them for a
    moment.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed and not copied until it is pickled.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        #: What calls leave behind, if it is known: no part of the fingerprint.
        self.left_behind: dict[str, set[str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        if _is_hashed():
            return str, (fingerprint(self.module, without=self.left_behind),)
        return _whole, (_freeze(self.module),)


def _is_hashed() -> bool:
    """Say whether joblib's hash asks: it pickles in Python, by a class of its own."""
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if isinstance(frame.f_locals.get("self"), Hasher):
            return True
        if frame.f_code.co_name not in ("__reduce__", "save"):
            return False
    return False


_IN_USE: WeakValueDictionary[int, PortableModule] = WeakValueDictionary()
_LOCK = Lock()


def portable(module: nn.Module) -> PortableModule:
    """Return what stands for a module in a pickle.

    The same for all who hold the module: it is pickled once, and they hold one copy
    afterwards.
    """
    with _LOCK:
        return _IN_USE.setdefault(id(module), PortableModule(module))


class _FrozenTensor:
    """The values of a tensor as a NumPy array; out of a pickle comes the tensor.

    At once: what torch.fx unpickles it traces again, and knows tensors alone.
    """

    def __init__(self, tensor: Tensor) -> None:
        values = tensor.detach().cpu()
        self.is_parameter = isinstance(tensor, nn.Parameter)
        number = tensor.is_floating_point() or tensor.is_complex()
        self.requires_grad = number and (self.is_parameter or tensor.requires_grad)
        self.dtype = str(tensor.dtype).removeprefix("torch.")
        self.shape = tuple(tensor.shape)
        # NumPy lacks bfloat16 and the 8-bit floats: their bytes will do.
        self.data = values.contiguous().reshape(-1).view(torch.uint8).numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        kind = self.is_parameter, self.requires_grad
        return _thawed, (self.data, self.dtype, self.shape, *kind)


def _thawed(
    data: npt.NDArray[np.uint8],
    dtype: str,
    shape: tuple[int, ...],
    is_parameter: bool,
    requires_grad: bool,
) -> Tensor:
    values = torch.from_numpy(data.copy()).view(getattr(torch, dtype)).reshape(shape)
    if is_parameter:
        return nn.Parameter(values, requires_grad=requires_grad)
    return values.requires_grad_(requires_grad)


def _tensors(module: nn.Module) -> dict[int, Tensor]:
    """Collect every tensor held by a module or a submodule, shared ones once."""
    found = {}
    for part in module.modules():
        held = vars(part)
        for values in (held["_parameters"], held["_buffers"], held):
            for value in values.values():
                if isinstance(value, Tensor):
                    found[id(value)] = value
    return found


def _freeze(module: nn.Module) -> nn.Module:
    """Copy the structure of a module around frozen tensors.

    ``deepcopy`` takes whatever its memo already holds for a copy: no weight is
    ever copied as a tensor.
    """
    memo: dict[int, Any] = {
        key: _FrozenTensor(tensor) for key, tensor in _tensors(module).items()
    }
    try:
        skeleton = copy.deepcopy(module, memo)
    except Exception as error:
        raise PicklingError(
            f"the network {type(module).__name__} cannot be copied, as pickles and "
            f"other processes need it: {error}. Leave what is in its way out of its "
            "attributes, or save the guard by curvdetect.storage.save, which keeps "
            "weights alone"
        ) from error
    parts = dict(skeleton.named_modules())
    for name, original in module.named_modules():
        if (part := parts.get(name)) is not None:  # a graph leaves out what it lacks
            part.training = False
            _put_back(original, part, memo)
    return skeleton


def _put_back(original: nn.Module, part: nn.Module, frozen: dict[int, Any]) -> None:
    """Call parameters and buffers so: a graph's copy takes them for attributes."""
    for held in ("_parameters", "_buffers"):
        for name, tensor in vars(original)[held].items():
            if tensor is not None:
                vars(part).pop(name, None)
                vars(part)[held][name] = frozen[id(tensor)]


def _whole(skeleton: nn.Module) -> nn.Module:
    return skeleton  # with tensors in the place of the frozen ones
