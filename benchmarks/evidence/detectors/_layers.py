"""Layers of any network, found by one pass: the last one, and some on the way to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from curvdetect import TorchModel

__all__ = [
    "Activations",
    "Features",
    "Parts",
    "RestOfNetwork",
    "calls",
    "last_map",
    "parts",
    "stages",
]

Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


class Call(NamedTuple):
    """One call of a module: what it was given and what it gave."""

    module: nn.Module
    given: tuple[Any, ...]
    gave: Any


def calls(
    network: Callable[[Tensor], Tensor], layers: Iterable[nn.Module], x: Tensor
) -> tuple[list[Call], Tensor]:
    """Return the calls of some layers during a pass, in order, and the logits."""
    found: list[Call] = []
    with _hooked(layers, lambda *call: found.append(Call(*call))):
        logits = network(x)
    return found, logits


class Features(nn.Module):
    """What the last affine layer of a network is given, (n, D), instead of logits."""

    def __init__(self, network: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.network, self.last = network, last

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.with_logits(x)[0]

    def with_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits of one pass."""
        found, logits = calls(self.network, [self.last], x)
        return found[-1].given[0].flatten(1), logits

    def train(self, mode: bool = True) -> Features:
        """Change nothing: the mode is the guarded network's own."""
        return self


@dataclass(frozen=True)
class Parts:
    """A network as features and head: logits are `head(features(x))`.

    `head` has a copy of the weights, so that a package may move or change it.
    """

    features: Features
    head: nn.Linear


class Activations(nn.Module):
    """What some layers of a network give, instead of its logits."""

    def __init__(self, network: nn.Module, layers: list[nn.Module]) -> None:
        super().__init__()
        self.network, self.layers = network, layers

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return a tensor for each layer, in the order of `layers`."""
        return self.with_logits(x)[0]

    def with_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the layers' tensors and logits of one pass."""
        found, logits = calls(self.network, self.layers, x)
        gave = {call.module: call.gave for call in found}
        return [gave[layer] for layer in self.layers], logits


class RestOfNetwork:
    """A network cut at one layer: `before(x)` gives its map, `after(map)` the logits.

    The cut may have other ways around it, as in residual networks: `after` runs the
    whole network on the images of the last call of `before`, with the map in the place
    of what the layer gives. Both together cost two passes.
    """

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        self.network, self.layer = network, layer

    def before(self, x: Tensor) -> Tensor:
        """Return what the layer gives, as (n, C, height, width)."""
        self.x = x
        (found,) = Activations(self.network, [self.layer])(x)
        self.tokens = found.ndim == 3
        return found.transpose(1, 2)[..., None] if self.tokens else found

    def after(self, images: Tensor) -> Tensor:
        """Return the logits that the network gives with this map."""
        out = images[..., 0].transpose(1, 2) if self.tokens else images
        with _hooked([self.layer], lambda *_: out):
            return self.network(self.x)


@lru_cache(maxsize=8)
def parts(model: TorchModel) -> Parts | None:
    """Return features and head of a network, or None if no affine layer is its last.

    The last layer is an `nn.Linear` (onnx2torch makes one of a Gemm), or a module that
    multiplies two matrices (onnx2torch's MatMul); what is added to that afterwards is
    its bias. That features times weights plus bias are the logits is checked.
    """
    found, logits = _probe(model)
    for call in reversed(found):
        weight = _weight_of(call)
        if weight is None or call.gave.flatten(1).shape != logits.shape:
            continue
        features = call.given[0].flatten(1)
        bias = (logits - features @ weight.T).mean(0)
        if not torch.allclose(features @ weight.T + bias, logits, 1e-3, 1e-3):
            return None
        if isinstance(call.module, nn.Linear) and call.module.bias is not None:
            bias = call.module.bias.detach()
        head = nn.utils.skip_init(nn.Linear, *reversed(weight.shape))
        head.load_state_dict({"weight": weight, "bias": bias})
        head.requires_grad_(False)
        return Parts(Features(model.as_module(), call.module), head.eval())
    return None


@lru_cache(maxsize=8)
def stages(model: TorchModel, most: int = 6) -> list[nn.Module]:
    """Return up to `most` layers on the way, evenly spaced; the last is the last one.

    They are blocks (modules of several, such as residual blocks) if there are three or
    more; otherwise single modules, without those that only rearrange what they are
    given. What comes at or after the last affine layer is left out.
    """
    found, _ = _probe(model)
    head = parts(model)
    modules = [call.module for call in found]
    end = len(found) if head is None else modules.index(head.features.last)
    seen: set[int] = set()
    kept = []
    for call in found[:end]:
        is_new = id(call.gave) not in seen
        seen.add(id(call.gave))
        if is_new and call.gave.ndim >= 2 and not _rearranges(call):
            kept.append(call.module)
    blocks = [m for m in kept if next(m.children(), None) is not None]
    single = [m for m in kept if m not in blocks]
    of_these = blocks if len(blocks) >= 3 else single
    n = min(most, len(of_these))
    return [of_these[(i + 1) * len(of_these) // n - 1] for i in range(n)]


def last_map(model: TorchModel) -> nn.Module | None:
    """Return the last layer that gives several channels at several places, if any.

    It gives (n, C, height, width) or tokens (n, T, C).
    """
    found, _ = _probe(model)
    for call in reversed(found):
        shape = call.gave.shape[1:]
        places = shape[1:].numel() if len(shape) == 3 else shape[:1].numel()
        if (
            len(shape) in (2, 3)
            and not _rearranges(call)
            and shape.numel() > places > 1
        ):
            return call.module
    return None


@contextmanager
def _hooked(layers: Iterable[nn.Module], hook: Hook) -> Iterator[None]:
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _probe(model: TorchModel) -> tuple[list[Call], Tensor]:
    """Run a network on random images; return the calls of modules, and the logits.

    Of calls, only those that take and give tensors, a row an image.
    """
    assert model.input_shape is not None
    low, high = model.bounds or (0.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, *model.input_shape, generator=generator) * (high - low) + low
    inner = [m for m in model.module.modules() if m is not model.module]
    with model.evaluating(), torch.no_grad():
        found, logits = calls(model.as_module(), inner, x)
    return [call for call in found if _is_of_rows(call, len(x))], logits


def _is_of_rows(call: Call, n: int) -> bool:
    tensors = all(isinstance(a, Tensor) for a in (*call.given, call.gave))
    return bool(tensors and call.given and call.gave.shape[:1] == (n,))


def _weight_of(call: Call) -> Tensor | None:
    """Return the matrix (K, D) that a module multiplies rows by, if it does."""
    if isinstance(call.module, nn.Linear):
        return call.module.weight.detach()
    if len(call.given) != 2 or any(a.ndim != 2 for a in call.given):
        return None
    rows, matrix = call.given
    if rows.shape[1] == len(matrix) and torch.allclose(
        rows @ matrix, call.gave, 1e-4, 1e-5
    ):
        return matrix.detach().T.contiguous()
    return None


def _rearranges(call: Call) -> bool:
    given, gave = call.given[0].flatten(1), call.gave.flatten(1)
    return given.shape == gave.shape and torch.equal(
        given.sort(1).values, gave.sort(1).values
    )
