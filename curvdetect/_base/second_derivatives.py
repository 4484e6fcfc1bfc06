"""Let a network be differentiated twice, or say which part of it cannot be."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

__all__ = ["first_gradient", "second_gradient", "twice_differentiable"]

#: How torch says that something can be differentiated only once.
_ONLY_ONCE = re.compile(
    r"derivative for \S+ is not implemented|no autograd formula|"
    r"differentiate twice|double[ -]backward"
)
_NAMED = re.compile(r"derivative for '?(\S+?)'? is|backward through (\S+) but")


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Record, in forward passes, what can be differentiated twice.

    The kernels that torch chooses for attention have no second derivative, nor has
    its hard sigmoid (the squeeze-excite blocks of MobileNetV3). Both are computed from
    parts that have one. Needed around the forward pass alone.

    Yields
    ------
    None
        On leaving, torch chooses again.
    """
    with _plain_attention(), _PlainHardSigmoid():
        yield


def first_gradient(value: Tensor, leaf: Tensor) -> Tensor:
    """Differentiate a number, so that it can be done once more.

    Parameters
    ----------
    value : Tensor of shape ()
        With its graph, recorded under :func:`twice_differentiable`.
    leaf : Tensor
        What it is differentiated by.

    Returns
    -------
    Tensor
        The gradient, with its graph.

    Raises
    ------
    ValueError
        If the graph holds a function, written in Python, whose gradient torch would
        take for a constant.

    Notes
    -----
    torch.autograd.grad passes over what is marked as once_differentiable, and over
    gradients that were computed outside of its graph, without a word: the second
    derivative lacks what they would have added. (Tensor.backward raises in some cases.)
    """
    custom = _custom_nodes(value)
    if not custom:
        return torch.autograd.grad(value, leaf, create_graph=True)[0]
    once: set[str] = set()
    for node, function in custom:
        if hasattr(function.backward, "__wrapped__"):  # by @once_differentiable
            once.add(function.__name__)
        node.register_hook(_noting_constants(once, function.__name__))
    # Every gradient is linear in those that come in: it is recorded if they are.
    ones = torch.ones_like(value).requires_grad_()
    (gradient,) = torch.autograd.grad(value, leaf, ones, create_graph=True)
    if once:
        raise _only_once(" and ".join(sorted(once)))
    return gradient


def second_gradient(along: Tensor, leaf: Tensor) -> Tensor:
    """Differentiate a number that was made from a first gradient.

    Parameters
    ----------
    along : Tensor of shape ()
        With its graph.
    leaf : Tensor
        What it is differentiated by.

    Returns
    -------
    Tensor
        The gradient; zero where nothing depends on `leaf`.

    Raises
    ------
    ValueError
        If torch knows no derivative. Its other errors are raised as they are.
    """
    try:
        return torch.autograd.grad(
            along, leaf, allow_unused=True, materialize_grads=True
        )[0]
    except RuntimeError as error:
        if not _ONLY_ONCE.search(str(error)):
            raise
        named = _NAMED.search(str(error))
        name = next(filter(None, named.groups())) if named else "something"
        raise _only_once(name, error) from error


def _only_once(name: str, error: Exception | None = None) -> ValueError:
    said = "" if error is None else f" (torch: {error})"
    return ValueError(
        f"{name} in the network has no second derivative{said}. Use "
        'method="gradient", differences of gradients, or replace that part: a fused '
        'attention by model.set_attn_implementation("eager") (transformers), or by '
        "timm.layers.set_fused_attn(False) before the network is made (timm)."
    )


def _custom_nodes(value: Tensor) -> list[tuple[Any, Any]]:
    """Return the nodes that are functions written in Python, with these functions."""
    found, seen, ahead = [], set(), [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "_forward_cls"):  # a torch.autograd.Function
            found.append((node, node._forward_cls))
        ahead.extend(following for following, _ in node.next_functions)
    return found


def _noting_constants(names: set[str], name: str) -> Callable[..., None]:
    """Make a hook that notes gradients that left the graph."""

    def note(inner: tuple[Tensor | None, ...], outer: tuple[Any, ...]) -> None:
        recorded = any(g is not None and g.requires_grad for g in outer)
        lost = any(g is not None and not g.requires_grad for g in inner)
        if recorded and lost:
            names.add(name)

    return note


class _PlainAttention:
    """Attention by matrix products, while at least one thread wants it.

    Which kernels torch may choose is one setting for all threads: each of two that put
    back what they found would leave what the other had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._setting = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._setting.enter_context(sdpa_kernel(SDPBackend.MATH))
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._setting.close()


_plain_attention = _PlainAttention()


def _hard_sigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    result = functional.relu6(input + 3) / 6
    return input.copy_(result) if inplace else result


_PLAIN: dict[Any, Callable[..., Tensor]] = {
    functional.hardsigmoid: _hard_sigmoid,
    torch.ops.aten.hardsigmoid.default: _hard_sigmoid,  # in exported programs
}


class _PlainHardSigmoid(TorchFunctionMode):
    """relu6(x + 3) / 6 where the hard sigmoid is called; in this thread alone."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))
