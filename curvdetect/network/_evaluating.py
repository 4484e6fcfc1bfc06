"""Call a module in eval mode, exactly, in turns, and leave it as it was."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from curvdetect.network.modules import device_of

__all__ = ["evaluating"]


class _Use:
    """Who is using a module: wrappers of the same module must not interleave."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.active = False


_USES: weakref.WeakKeyDictionary[nn.Module, _Use] = weakref.WeakKeyDictionary()


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
    use = _USES.setdefault(module, _Use())
    with use.lock:
        if use.active:
            yield
            return
        modes = [(m, m.training) for m in module.modules()]
        trainable = [p for p in module.parameters() if p.requires_grad]
        use.active = True
        try:
            with _exact_arithmetic(torch.device(device or device_of(module))):
                module.eval()
                for parameter in trainable:
                    parameter.requires_grad_(False)
                yield
        finally:
            use.active = False
            for part, training in modes:
                part.training = training
            for parameter in trainable:
                parameter.requires_grad_(True)


@contextmanager
def _exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Switch off what rounds coarsely; keep random numbers as they are."""
    cudnn = torch.backends.cudnn
    with (
        torch.inference_mode(False),
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
