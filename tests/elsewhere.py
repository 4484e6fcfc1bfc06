"""A device that is not the CPU, for machines that have no other.

It computes on the CPU, but refuses what a GPU would refuse, tensors of two devices in
one operation, and writes down where the CPU waits for it: every copy from one to the
other, and every operation whose result decides what comes next.
"""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

#: Operations whose result the CPU must know: a number, or how many rows there are.
_DECIDING = (
    aten._local_scalar_dense,
    aten._unique2,
    aten.equal,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave,
)
#: The name it goes by: torch's own device of this name holds no values.
NAME = "meta"


class Elsewhere(Tensor):
    """A tensor on that device; `values` are its values on the CPU."""

    @staticmethod
    def __new__(cls, values):
        return Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=NAME,
        )

    def __init__(self, values):
        self.values = values

    __torch_function__ = torch._C._disabled_torch_function_impl

    def new_tensor(self, data):  # torch's does not ask the device
        return torch.tensor(data, dtype=self.dtype).to(NAME)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise RuntimeError(f"{operation} outside of the device")


class Device(TorchDispatchMode):
    """The device, within a ``with`` statement.

    Attributes
    ----------
    waits : list of str
        The operations for which the CPU waited.
    """

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        there = [t for t in tensors if isinstance(t, Elsewhere)]
        here = [t for t in tensors if not isinstance(t, Elsewhere)]
        if operation.overloadpacket is not aten.stack:
            here = [t for t in here if t.ndim]  # a GPU takes numbers from the CPU
        if there and here:
            raise RuntimeError(f"{operation}: tensors of two devices")
        wanted = kwargs.get("device")
        stays = bool(there) if wanted is None else torch.device(wanted).type == NAME
        if stays and kwargs.get("generator") is not None:
            raise RuntimeError(f"{operation}: a generator of the CPU")
        copies = bool(tensors) and bool(there) != stays
        if copies or (there and _decides(operation, args)):
            self.waits.append(str(operation))
        if wanted is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        values = tree_map_only(Elsewhere, lambda t: t.values, (args, kwargs))
        result = operation(*values[0], **values[1])
        if not stays:
            return result
        wrapped = tree_map_only(Tensor, Elsewhere, result)
        return return_and_correct_aliasing(operation, args, kwargs, wrapped)


def _decides(operation, args):
    """Tell whether the CPU must know the result of an operation."""
    packet = operation.overloadpacket
    if packet in (aten.index, aten.index_put, aten.index_put_):
        # By a mask: how many rows are there? One number for all of them needs no count.
        masks = any(i is not None and i.dtype == torch.bool for i in args[1])
        return masks and (packet is aten.index or args[2].ndim > 0)
    return packet in _DECIDING


def move(module):
    """Move the weights of a network there; to be called within a Device."""
    for part in module.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                part._parameters[name] = nn.Parameter(Elsewhere(weight.detach()))
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = Elsewhere(buffer)
    return module
