"""How many rows a module is given at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["activation_bytes", "fitting_rows"]

#: Activations that a batch may hold, in bytes, and how many rows. On a CPU, wider
#: batches leave the cache, and malloc gives their memory back after each and takes it
#: again (with 256 rows, the LeNet's features took a quarter longer). A GPU wants many
#: rows at once.
_ACTIVATION_BYTES = {"cpu": 128 * 2**20, "cuda": 2 * 2**30}
_BATCH_SIZE_RANGE = {"cpu": (16, 128), "cuda": (64, 8192)}


def fitting_rows(kind: str, bytes_per_row: int) -> int:
    """Return how many rows keep the activations of a "cpu" or "cuda" where it wants."""
    fitting = _ACTIVATION_BYTES[kind] // max(bytes_per_row, 1)
    smallest, largest = _BATCH_SIZE_RANGE[kind]
    return min(max(fitting, smallest), largest)


def activation_bytes(module: nn.Module, call: Callable[[], object]) -> int:
    """Measure what the leaves of a module put out during a call of it.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    call : callable
        Gives it one input.

    Returns
    -------
    int
        Sum over all outputs, in bytes.
    """
    sizes: list[int] = []

    def record(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    leaves = [m for m in module.modules() if next(m.children(), None) is None]
    if any(isinstance(leaf, torch.jit.ScriptModule) for leaf in leaves):
        leaves = []  # it takes no hooks
    hooks = [leaf.register_forward_hook(record) for leaf in leaves]
    try:
        with torch.no_grad():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes) if sizes else _bytes_of_operations(call)


def _bytes_of_operations(call: Callable[[], object]) -> int:
    """Measure what all operations put out: some two or three times as much."""
    total = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(
            self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal total
            result = operation(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                total += result.numel() * result.element_size()
            return result

    with torch.no_grad(), Sizes():  # type: ignore[no-untyped-call]
        call()
    return total
