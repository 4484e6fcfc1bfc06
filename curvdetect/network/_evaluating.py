"""Call a module in eval mode, exactly, in turns, and leave it as it was."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
)
from typing import Any

import torch
from torch import Tensor, nn

from curvdetect.network.modules import device_of

__all__ = ["evaluating"]


class _Use:
    """Who is using a module: wrappers that share a part of it must not interleave."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread: int | None = None  # that evaluates it as a whole


_USES: weakref.WeakKeyDictionary[nn.Module, _Use] = weakref.WeakKeyDictionary()
_LOOK_UP = threading.Lock()
_CONTAINERS = (list, dict, set)


@contextmanager
def evaluating(
    module: nn.Module, device: str | torch.device | None = None
) -> Iterator[None]:
    """Hold a module in eval mode, with gradients to its input only.

    Parameters
    ----------
    module : torch.nn.Module
        What is held.
    device : str or torch.device, optional
        Where it computes; where its weights are by default.

    Yields
    ------
    None
        As :meth:`curvdetect.TorchModel.evaluating` does.
    """
    use = _uses([module])[0]
    if use.thread == threading.get_ident():
        yield
        return
    with _turn(module), _restored(module):
        use.thread = threading.get_ident()
        try:
            with _exact_arithmetic(torch.device(device or device_of(module))):
                yield
        finally:
            use.thread = None


def _uses(modules: list[nn.Module]) -> list[_Use]:
    with _LOOK_UP:
        return [_USES.setdefault(module, _Use()) for module in modules]


@contextmanager
def _turn(module: nn.Module) -> Iterator[None]:
    """Wait until nobody uses a part of the module.

    In one order, so that two that share some parts never wait for each other.
    """
    with ExitStack() as held:
        for use in sorted(_uses(list(module.modules())), key=id):
            held.enter_context(use.lock)
        yield


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Switch to eval mode without gradients to weights; put everything back at the end.

    Modes, ``requires_grad``, buffers, and what a forward pass sets or changes among the
    attributes of the module and its parts.
    """
    modes = [(part, part.training) for part in module.modules() if _has_mode(part)]
    trainable = [p for p in module.parameters() if p.requires_grad]
    before = [(part, _state(part)) for part in module.modules() if _is_python(part)]
    try:
        for part, _ in modes:
            part.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, state in before:
            _put_back(part, *state)
        for part, training in modes:
            part.training = training
        for parameter in trainable:
            parameter.requires_grad_(True)


def _has_mode(part: nn.Module) -> bool:
    """Say whether a module can switch; a frozen script has no mode any more."""
    return hasattr(part, "training")


def _is_python(part: nn.Module) -> bool:
    return not isinstance(part, torch.jit.ScriptModule)


_State = tuple[dict[str, Any], dict[str, Any], dict[str, tuple[Tensor, int, Tensor]]]


def _state(part: nn.Module) -> _State:
    """Return attributes, what containers among them hold, and buffers with values."""
    attributes = dict(vars(part))
    held = {
        name: value.copy()
        for name, value in attributes.items()
        if type(value) in _CONTAINERS and not name.startswith("_")
    }
    buffers = {
        name: (buffer, buffer._version, buffer.detach().clone())
        for name, buffer in part._buffers.items()
        if buffer is not None
    }
    return attributes, held, buffers


def _put_back(
    part: nn.Module,
    attributes: dict[str, Any],
    held: dict[str, Any],
    buffers: dict[str, tuple[Tensor, int, Tensor]],
) -> None:
    now = vars(part)
    if list(now) == list(attributes):
        now.update(attributes)
    else:  # at once: other threads may be looking for its parts
        object.__setattr__(part, "__dict__", attributes)
    for name, content in held.items():
        container = attributes[name]
        container.clear()
        if isinstance(container, list):
            container.extend(content)
        else:
            container.update(content)
    for name in [name for name in part._buffers if name not in buffers]:
        if part._buffers[name] is not None:
            del part._buffers[name]
    for name, (buffer, version, values) in buffers.items():
        part._buffers[name] = buffer
        if buffer._version != version:
            with torch.no_grad():
                buffer.copy_(values)


def _eager() -> AbstractContextManager[None]:
    """Run what is compiled inside a module as it was before, if torch lets us choose.

    It does not while it compiles what calls us.
    """
    if torch.compiler.is_dynamo_compiling():
        return nullcontext()
    try:
        stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    except RuntimeError:
        return nullcontext()
    return stance


@contextmanager
def _exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Switch off what rounds coarsely or compiles; keep random numbers as they are.

    Compiled, a ResNet-20 gave wrong curvatures (torch 2.15, on a CPU).
    """
    cudnn = torch.backends.cudnn
    with (
        torch.inference_mode(False),
        _eager(),
        torch.autocast(device.type, enabled=False)
        if torch.amp.is_autocast_available(device.type)
        else nullcontext(),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        cudnn.flags(
            enabled=cudnn.enabled,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=False,
        )
        if device.type == "cuda"
        else nullcontext(),
    ):
        yield
